"""The Python door in one call: settings as keywords, a model for as long as the pictures take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from clipgen.errors import SettingsError
from clipgen.pipeline.pipeline import Pipeline
from clipgen.pipeline.result import Result
from clipgen.settings.settings import Settings


def generate(
    prompt: str, *, device: str = "auto", dtype: str = "auto", offline: bool = False, **settings: Any
) -> Result:
    """Draws one picture; `settings` are Settings fields. Raises SettingsError for more: that is generate_many."""
    if settings.get("images", 1) != 1:
        raise SettingsError("generate draws one picture; generate_many draws more", field="images")
    (result,) = generate_many([prompt], device=device, dtype=dtype, offline=offline, **settings)
    return result


def generate_many(
    prompts: Iterable[str], *, device: str = "auto", dtype: str = "auto", offline: bool = False, **settings: Any
) -> Iterator[Result]:
    """Yields the pictures of each prompt as they get finished; the model is loaded once, at the first."""
    pipe: Pipeline | None = None
    for prompt in prompts:
        wanted = Settings.from_dict({**settings, "prompt": prompt})
        pipe = pipe or Pipeline.from_pretrained(wanted.model, device, dtype, offline, [wanted])
        yield from (event for event in pipe.generate(wanted) if isinstance(event, Result))


def vary(
    image: str | Path, *, device: str = "auto", dtype: str = "auto", offline: bool = False, **settings: Any
) -> Iterator[Result]:
    """Yields variations of a picture file as they get finished; `settings` are Settings fields, a prompt among them.

    `image` may end with a weight, `fox.png:0.5`: half the picture, half the prompt. Raises ImageFileError.
    """
    wanted = Settings.from_dict({**settings, "vary": str(image)})
    pipe = Pipeline.from_pretrained(wanted.model, device, dtype, offline, [wanted])
    yield from (event for event in pipe.generate(wanted) if isinstance(event, Result))
