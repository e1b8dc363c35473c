"""`clipgen caption`: pictures in words, against the prompts they carry if asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipgen.cli.commands.score import own_prompt
from clipgen.cli.image_walk import PICTURES, STORYBOOK, Device, Images, ImageWalk, Json, Model, Offline, Verbose
from clipgen.cli.output import Report
from clipgen.errors import ImageFileError

if TYPE_CHECKING:
    from clipgen.captioning.clip_captioner import Captioner

DIFFERENT = ("missing", "hallucinated")
NOTHING = "-"


def caption(
    images: Images,
    diff: Annotated[
        bool,
        typer.Option(
            "--diff", metavar="", help="Against the prompt inside: missing, hallucinated.", rich_help_panel=PICTURES
        ),
    ] = False,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", metavar="NAME", help="coca or clipcap, of a model with both.", rich_help_panel=PICTURES,
            show_default=False,
        ),
    ] = None,
    model: Model = STORYBOOK,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Say what pictures show.

    By storybook, by a model that brings a captioner (clipgen train captioner makes one), or by a BLIP.

    clipgen caption fox.png
    clipgen caption outputs/ --diff               what the prompts ask for and the pictures lack
    clipgen caption fox.png -m org/name           by a BLIP of the hub
    """
    columns = ("picture", "caption", *DIFFERENT * diff)
    with Report(json=json, verbose=verbose) as report, ImageWalk(report, columns) as walk:
        from clipgen.device import pick_device
        from clipgen.gallery import find_images
        from clipgen.models.load_captioner import load_captioner

        def load() -> Captioner:
            return load_captioner(model, pick_device(device), kind, offline=offline)

        paths = list(find_images(images))
        for path, text in walk.over(paths, _written(walk, paths, model, load)):
            if not diff:
                walk.row(path, text)
                walk.tell(path=str(path), caption=text)
                continue
            try:
                prompt = own_prompt(path)
            except ImageFileError as error:
                walk.fault(path, error)
                continue
            _compare(walk, path, prompt, text)


def _written(
    walk: ImageWalk, paths: Sequence[Path], model: str, load: Callable[[], Captioner]
) -> Generator[tuple[Path, str], None, None]:
    """Yields each picture's path and caption by a model that loads once a picture is open."""
    from clipgen.gallery import iter_captions

    pictures = walk.open_images(paths)
    if (first := next(pictures, None)) is not None:
        yield from iter_captions(walk.loaded(model, load), chain([first], pictures))


def _compare(walk: ImageWalk, path: Path, prompt: str, text: str) -> None:
    """Tells a caption and how it differs from the prompt of its picture."""
    from clipgen.captioning.difference import difference

    found = difference(prompt, text)
    walk.row(path, text, *(", ".join(parts) or NOTHING for parts in (found.missing, found.hallucinated)))
    walk.tell(path=str(path), caption=text, prompt=prompt, missing=found.missing, hallucinated=found.hallucinated)
