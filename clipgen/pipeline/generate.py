"""The Python interface in one call: each function loads the model, generates and forgets the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Unpack

from clipgen.errors import SettingsError
from clipgen.pipeline.pipeline import Pipeline
from clipgen.pipeline.result import Result
from clipgen.settings.keywords import SettingsKeywords, VaryKeywords
from clipgen.settings.settings import Settings


def generate(
    prompt: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    **settings: Unpack[SettingsKeywords],
) -> Result:
    """Generates one image and returns its Result; use `generate_many` for several.

    Args:
        prompt: The text to generate an image of.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        dtype: `auto`, `auto-fast`, `float32`, `bfloat16` or `float16`.
        offline: Download nothing.
        settings: Fields of Settings, such as `seed=7, steps=20`.

    Raises:
        SettingsError: A field has an invalid value, or `images` is not 1.
        ClipgenError: As Pipeline.from_pretrained and Pipeline.generate.
    """
    if settings.get("images", 1) != 1:
        raise SettingsError("generate returns one image; generate_many returns several", field="images")
    (result,) = generate_many([prompt], device=device, dtype=dtype, offline=offline, **settings)
    return result


def generate_many(
    prompts: Iterable[str],
    *,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    **settings: Unpack[SettingsKeywords],
) -> Iterator[Result]:
    """Returns an iterator over the Results of several prompts; each is yielded as soon as it is finished.

    The arguments and errors are those of `generate`. The model is loaded once, when the first Result is requested.
    """
    pipe: Pipeline | None = None
    for prompt in prompts:
        complete = Settings.from_dict({**settings, "prompt": prompt})
        pipe = pipe or Pipeline.from_pretrained(complete.model, device, dtype, offline, [complete])
        yield from (event for event in pipe.generate(complete) if isinstance(event, Result))


def vary(
    image: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    **settings: Unpack[VaryKeywords],
) -> Iterator[Result]:
    """Returns an iterator over the Results of variations of an image file; `settings` may include a prompt.

    `image` may end with a weight: `fox.png:0.5` is half the image and half the prompt. The other arguments are those of
    `generate`. Raises ImageFileError.
    """
    complete = Settings.from_dict({**settings, "vary": str(image)})
    pipe = Pipeline.from_pretrained(complete.model, device, dtype, offline, [complete])
    yield from (event for event in pipe.generate(complete) if isinstance(event, Result))
