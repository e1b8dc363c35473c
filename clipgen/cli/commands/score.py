"""`clipgen score`: how well pictures fit a text, or the prompt that each of them carries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipgen.cli.image_walk import (
    PICTURES,
    STORYBOOK,
    Clip,
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
from clipgen.report.score_text import percent, word
from clipgen.settings.settings import check_field

if TYPE_CHECKING:
    from clipgen.clip.score import Score

Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt", "-p", metavar="TEXT", help="What they should show; each picture's own prompt.",
        rich_help_panel=PICTURES, show_default=False,
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
    """Say how well pictures fit a text.

    The percentage tells how many of 1,000 other captions fit the picture worse.

    clipgen score fox.png                             by the prompt inside
    clipgen score outputs/ -p "a fox" -p "an owl"     a folder, by two texts
    clipgen score fox.png -p "a fox" -m org/name      by a CLIP of the hub
    """
    columns = ("match", "", "picture", "text") + ("similarity", "CLIP score", "CLIP") * verbose
    with Report(json=json, verbose=verbose) as report, ImageWalk(report, columns) as walk:
        for text in prompt or ():
            check_field("prompt", text)
        for path, features, scorer in walk.seen(images, Clip(model, device, offline)):
            try:
                texts = prompt or [own_prompt(path)]
            except ImageFileError as error:
                walk.fault(path, ImageFileError(f"{error} Name a text with -p."))
                continue
            if walk.count == 1 or not prompt:
                warn_cut(report, scorer, texts)
            for text in texts:
                found = scorer.score_features(features[None], [text])[0]
                walk.row(*_cells(found, path, text, verbose))
                walk.tell(path=str(path), text=text, clip=facts(found))


def own_prompt(path: Path) -> str:
    """Returns the prompt that a picture carries, without its syntax; raises ImageFileError if there is none."""
    from clipgen.image_file import read_settings
    from clipgen.text import plain_text

    settings = read_settings(path).settings
    return plain_text(settings.prompt, settings.prompt_syntax)


def _cells(found: Score, path: Path, text: str, verbose: bool) -> tuple[object, ...]:
    detail = (f"{found.similarity:.3f}", f"{found.score:.2f}", found.model) if verbose else ()
    return (*match(found), path, text, *detail)


def match(found: Score) -> tuple[str, str]:
    """Returns `97 %` and `good`; the similarity and `uncalibrated` without a percentile."""
    if found.percentile is None:
        return f"{found.similarity:.3f}", "uncalibrated"
    return percent(found.percentile), word(found.percentile)


def facts(found: Score) -> dict[str, Any]:
    """Returns a score of a picture that nobody steered as the JSON carries it."""
    return {name: value for name, value in found.to_dict().items() if name not in ("curve", "self_graded")}
