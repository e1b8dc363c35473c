"""`clipgen caption`: writes captions of pictures, optionally compared with the prompts in the files."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipgen.cli.commands.score import prompt_in_file
from clipgen.cli.image_walk import PICTURES, STORYBOOK, Device, Images, ImageWalk, Json, Model, Offline, Verbose
from clipgen.cli.output import Report
from clipgen.errors import ImageFileError

if TYPE_CHECKING:
    from clipgen.captioning.clip_captioner import Captioner

DIFF_COLUMNS = ("missing", "hallucinated")
NOTHING = "-"


def caption(
    images: Images,
    diff: Annotated[
        bool,
        typer.Option(
            "--diff", metavar="", help="Compare with the prompt in the file: missing, hallucinated.",
            rich_help_panel=PICTURES,
        ),
    ] = False,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", metavar="NAME", help="coca or clipcap, for a model that has both.", rich_help_panel=PICTURES,
            show_default=False,
        ),
    ] = None,
    model: Model = STORYBOOK,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Describe pictures in words.

    With storybook, another model that has a captioner (see clipgen train captioner), or a BLIP model.

    clipgen caption fox.png
    clipgen caption outputs/ --diff               what the prompts ask for and the pictures lack
    clipgen caption fox.png -m org/name           with a BLIP model of the hub
    """
    columns = ("picture", "caption", *DIFF_COLUMNS * diff)
    with Report(json=json, verbose=verbose) as report, ImageWalk(report, columns) as walk:
        from clipgen.device import pick_device
        from clipgen.gallery import find_images
        from clipgen.models.load_captioner import load_captioner

        def load() -> Captioner:
            return load_captioner(model, pick_device(device), kind, offline=offline)

        paths = list(find_images(images))
        for path, text in walk.iterate(paths, _captions(walk, paths, model, load)):
            if not diff:
                walk.row(path, text)
                walk.event(path=str(path), caption=text)
                continue
            try:
                prompt = prompt_in_file(path)
            except ImageFileError as error:
                walk.add_error(path, error)
                continue
            _print_difference(walk, path, prompt, text)


def _captions(
    walk: ImageWalk, paths: Sequence[Path], model: str, load: Callable[[], Captioner]
) -> Generator[tuple[Path, str], None, None]:
    """Yields each picture's path and caption; the model loads after the first picture was opened."""
    from clipgen.gallery import iter_captions

    images = walk.open_images(paths)
    if (first := next(images, None)) is not None:
        yield from iter_captions(walk.load(model, load), chain([first], images))


def _print_difference(walk: ImageWalk, path: Path, prompt: str, text: str) -> None:
    """Prints a caption and its difference from the prompt of the picture."""
    from clipgen.captioning.difference import difference

    result = difference(prompt, text)
    walk.row(path, text, *(", ".join(parts) or NOTHING for parts in (result.missing, result.hallucinated)))
    walk.event(path=str(path), caption=text, prompt=prompt, missing=result.missing, hallucinated=result.hallucinated)
