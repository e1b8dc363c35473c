"""`clipgen search`: finds pictures by what they show, in the history or in folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipgen.cli.image_walk import PICTURES, STORYBOOK, ClipChoice, Device, ImageWalk, Json, Model, Offline, Verbose
from clipgen.cli.numbers import whole
from clipgen.cli.output import Report
from clipgen.errors import SettingsError


def search(
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT", help="What they show; a + b - c adds and subtracts.", rich_help_panel=PICTURES
        ),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like", metavar="IMAGE", help="Find pictures similar to this one; repeatable.", rich_help_panel=PICTURES,
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        list[str] | None,
        typer.Option(
            "--folder", metavar="DIR", help="Search this folder; repeatable.", rich_help_panel=PICTURES,
            show_default="the history",
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            "--top", metavar="N", help="Print the N nearest.", rich_help_panel=PICTURES, parser=whole("top", 1)
        ),
    ] = 10,
    model: Model = STORYBOOK,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Find pictures by what they show.

    The image features are kept in an index, so the next search encodes only new pictures.

    clipgen search "a fox in snow"                 in the history
    clipgen search "a fox + night - snow" --top 3  more night, less snow
    clipgen search --like fox.png --folder photos  similar pictures in a folder
    """
    with Report(json=json, verbose=verbose) as report, ImageWalk(report, ("similarity", "picture")) as walk:
        from clipgen.gallery import iter_image_features, nearest_images, open_index, parse_query, query_features
        from clipgen.image_file import open_image
        from clipgen.models.find import find_clip

        if text is None and not like:
            raise SettingsError("Give a text to search for, or --like IMAGE", field="text")
        terms = [] if text is None else parse_query(text)
        examples = [(name, open_image(name)) for name in like or ()]
        paths = _images_in(folder) if folder else _images_of_history()
        encoder = ClipChoice(model, device, offline).load().encoder
        index = open_index(find_clip(model, offline=True).path)
        for _ in walk.iterate(paths, index.update(encoder, paths, walk.add_error)):
            pass
        vector = query_features(encoder, [each for _, each in iter_image_features(encoder, examples)], terms)
        for hit in nearest_images(index, paths, vector, top):
            walk.row(f"{hit.similarity:.3f}", hit.path)
            walk.event(**{**vars(hit), "path": str(hit.path)})


def _images_in(folders: list[str]) -> list[Path]:
    """Returns the image files in folders; raises SettingsError for a folder that does not exist."""
    from clipgen.gallery import find_images

    if missing := [name for name in folders if not Path(name).is_dir()]:
        raise SettingsError(f"folder '{missing[0]}' does not exist", field="folder")
    return list(find_images(folders))


def _images_of_history() -> list[Path]:
    """Returns the pictures of the history whose files still exist."""
    from clipgen import history

    return [path for path in history.paths() if path.is_file()]
