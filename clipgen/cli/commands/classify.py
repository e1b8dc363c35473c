"""`clipgen classify`: which of some labels fits a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
from clipgen.cli.numbers import whole
from clipgen.cli.output import Report

if TYPE_CHECKING:
    from torch import Tensor

TOP = 5


def classify(
    images: Images,
    labels: Annotated[
        list[str],
        typer.Option("--labels", metavar="A,B", help="What it may be; repeatable.", rich_help_panel=PICTURES),
    ],
    template: Annotated[
        list[str] | None,
        typer.Option(
            "--template", metavar="TEXT", help='Words around a label, "a {}"; several are averaged.',
            rich_help_panel=PICTURES, show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="N", help="The N likeliest; 5.", rich_help_panel=PICTURES, parser=whole("top", 1),
            show_default=False,
        ),
    ] = None,
    model: Model = STORYBOOK,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Say which label fits a picture, of those you name.

    The percentages are the softmax of CLIP's logits: they add up to 100 over the labels.

    clipgen classify fox.png --labels "a photo of a cat,a photo of a dog"
    clipgen classify outputs/ --labels fox,owl,car --template "a {}" --top 1
    """
    with Report(json=json, verbose=verbose) as report, ImageWalk(report, ("chance", "label", "picture")) as walk:
        from clipgen.clip.classify import DEFAULT_TEMPLATES, check_labels, classify_features, label_features

        names = [name.strip() for line in labels for name in line.split(",")]
        templates = template or DEFAULT_TEMPLATES
        check_labels(names, templates)
        words: Tensor | None = None
        for path, features, scorer in walk.seen(images, Clip(model, device, offline)):
            if words is None:
                warn_cut(report, scorer, [each.replace("{}", name) for name in names for each in templates])
                words = label_features(scorer.encoder, names, templates)
            best = classify_features(scorer.encoder, features, names, words)[: top or TOP]
            for guess in best:
                walk.row(f"{100 * guess.probability:.1f} %", guess.label, path)
            walk.tell(path=str(path), labels=[vars(guess) for guess in best])
