"""`clipgen search`: pictures by what they show, among everything made here or below a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipgen.cli.image_walk import PICTURES, STORYBOOK, Clip, Device, ImageWalk, Json, Model, Offline, Verbose
from clipgen.cli.numbers import whole
from clipgen.cli.output import Report
from clipgen.errors import SettingsError

TOP = 10


def search(
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="What they show; a + b - c adds and takes away.", rich_help_panel=PICTURES),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like", metavar="IMAGE", help="What resembles a picture; repeatable.", rich_help_panel=PICTURES,
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        list[str] | None,
        typer.Option(
            "--folder", metavar="DIR", help="Where; repeatable; all that the history knows.", rich_help_panel=PICTURES,
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="N", help="The N closest; 10.", rich_help_panel=PICTURES, parser=whole("top", 1),
            show_default=False,
        ),
    ] = None,
    model: Model = STORYBOOK,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Find pictures by what they show.

    What CLIP saw is kept in an index: the next search only looks at new pictures.

    clipgen search "a fox in snow"                 among all that was drawn here
    clipgen search "a fox + night - snow" --top 3  with this, without that
    clipgen search --like fox.png --folder photos  what looks alike
    """
    with Report(json=json, verbose=verbose) as report, ImageWalk(report, ("similarity", "picture")) as walk:
        from clipgen.gallery import iter_image_features, nearest_images, open_index, parse_query, query_features
        from clipgen.image_file import open_image
        from clipgen.models.find import find_clip

        if text is None and not like:
            raise SettingsError("Say what to search for: words, or --like IMAGE", field="text")
        terms = [] if text is None else parse_query(text)
        examples = [(name, open_image(name)) for name in like or ()]
        paths = _below(folder) if folder else _made()
        encoder = Clip(model, device, offline).load(report).encoder
        index = open_index(find_clip(model, offline=True).path)
        for _ in walk.over(paths, index.update(paths, encoder, walk.fault)):
            pass
        vector = query_features(encoder, terms, [features for _, features in iter_image_features(encoder, examples)])
        for found in nearest_images(index, paths, vector, top or TOP):
            walk.row(f"{found.similarity:.3f}", found.path)
            walk.tell(**{**vars(found), "path": str(found.path)})


def _below(folders: list[str]) -> list[Path]:
    """Returns the pictures below folders; raises SettingsError for what is none."""
    from clipgen.gallery import find_images

    if missing := [name for name in folders if not Path(name).is_dir()]:
        raise SettingsError(f"folder '{missing[0]}' is not there", field="folder")
    return list(find_images(folders))


def _made() -> list[Path]:
    """Returns the pictures of the history that are still there."""
    from clipgen import history

    return [path for path in history.paths() if path.is_file()]
