"""`clipgen rank`: sorts pictures by how well they match a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipgen.cli.commands.score import match_cells, to_json
from clipgen.cli.image_walk import (
    PICTURES,
    STORYBOOK,
    ClipChoice,
    Device,
    Images,
    ImageWalk,
    Json,
    Model,
    Offline,
    Verbose,
    warn_cut,
)
from clipgen.cli.numbers import whole
from clipgen.cli.output import Report
from clipgen.settings.settings import check_field

if TYPE_CHECKING:
    from clipgen.clip.score import Score


def rank(
    images: Images,
    prompt: Annotated[
        str,
        typer.Option("--prompt", "-p", metavar="TEXT", help="What the pictures should show.", rich_help_panel=PICTURES),
    ],
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="N", help="Print only the N best.", rich_help_panel=PICTURES, parser=whole("top", 1),
            show_default="all",
        ),
    ] = None,
    model: Model = STORYBOOK,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Sort pictures by how well they match a text, best first.

    clipgen rank outputs/ -p "a fox in snow" --top 5
    """
    with Report(json=json, verbose=verbose) as report, ImageWalk(report, ("match", "picture")) as walk:
        check_field("prompt", prompt)
        scores: list[tuple[Score, Path]] = []
        try:
            for path, features, scorer in walk.features(images, ClipChoice(model, device, offline)):
                if not scores:
                    warn_cut(report, scorer, [prompt])
                scores += [(scorer.score_features(features[None], [prompt])[0], path)]
        finally:
            best = sorted(scores, key=lambda pair: pair[0].rank, reverse=True)[:top]
            for place, (score, path) in enumerate(best, 1):
                walk.row(match_cells(score)[0], path)
                walk.event(rank=place, path=str(path), clip=to_json(score))
