"""`clipgen score`: the CLIP score of pictures for a text, or for the prompt in each file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from clipgen.cli.output import Report
from clipgen.errors import ImageFileError
from clipgen.report.score_text import percent, rating
from clipgen.settings.settings import check_field

if TYPE_CHECKING:
    from clipgen.clip.score import Score

Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt", "-p", metavar="TEXT", help="What the pictures should show; repeatable.", rich_help_panel=PICTURES,
        show_default="the prompt in each file",
    ),
]  # fmt: skip


def score(
    images: Images,
    prompt: Texts = None,
    model: Model = STORYBOOK,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Score how well pictures match a text.

    The percentage says how many of 1,000 other captions match the picture worse.

    clipgen score fox.png                             for the prompt in the file
    clipgen score outputs/ -p "a fox" -p "an owl"     a folder, for two texts
    clipgen score fox.png -p "a fox" -m org/name      with a CLIP model of the hub
    """
    columns = ("match", "", "picture", "text", *("similarity", "CLIP score", "CLIP") * verbose)
    with Report(json=json, verbose=verbose) as report, ImageWalk(report, columns) as walk:
        for text in prompt or ():
            check_field("prompt", text)
        for path, features, scorer in walk.features(images, ClipChoice(model, device, offline)):
            try:
                texts = prompt or [prompt_in_file(path)]
            except ImageFileError as error:
                walk.add_error(path, ImageFileError(f"{error} Give a text with -p."))
                continue
            if walk.count == 1 or not prompt:
                warn_cut(report, scorer, texts)
            for text in texts:
                result = scorer.score_features(features[None], [text])[0]
                walk.row(*_cells(result, path, text, verbose))
                walk.event(path=str(path), text=text, clip=to_json(result))


def prompt_in_file(path: Path) -> str:
    """Returns the prompt in an image file without its syntax; raises ImageFileError if there is none."""
    from clipgen.image_file import read_settings
    from clipgen.text import plain_text

    settings = read_settings(path).settings
    return plain_text(settings.prompt, settings.prompt_syntax, settings.long_prompt)


def _cells(result: Score, path: Path, text: str, verbose: bool) -> tuple[object, ...]:
    detail = (f"{result.similarity:.3f}", f"{result.score:.2f}", result.model) if verbose else ()
    return (*match_cells(result), path, text, *detail)


def match_cells(result: Score) -> tuple[str, str]:
    """Returns `97%` and `good`, or the similarity and `uncalibrated` if the score has no percentile."""
    if result.percentile is None:
        return f"{result.similarity:.3f}", "uncalibrated"
    return percent(result.percentile), rating(result.percentile)


def to_json(result: Score) -> dict[str, Any]:
    """Returns the score of an image file for JSON, without the fields that only a generation has."""
    return {name: value for name, value in result.to_dict().items() if name not in ("curve", "self_graded")}
