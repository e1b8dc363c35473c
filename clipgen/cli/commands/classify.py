"""`clipgen classify`: zero-shot classification of pictures with labels that the user names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
from clipgen.cli.numbers import whole
from clipgen.cli.output import Report

if TYPE_CHECKING:
    from torch import Tensor


def classify(
    images: Images,
    labels: Annotated[
        list[str],
        typer.Option("--labels", metavar="A,B", help="The labels; repeatable.", rich_help_panel=PICTURES),
    ],
    template: Annotated[
        list[str] | None,
        typer.Option(
            "--template", metavar="TEXT", help='A text around each label, for example "a {}"; several are averaged.',
            rich_help_panel=PICTURES, show_default=False,
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            "--top", metavar="N", help="Print the N most probable labels.", rich_help_panel=PICTURES,
            parser=whole("top", 1),
        ),
    ] = 5,
    model: Model = STORYBOOK,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Find the label that fits a picture best.

    The percentages are the softmax of CLIP's logits: those of all labels add up to 100.

    clipgen classify fox.png --labels "a photo of a cat,a photo of a dog"
    clipgen classify outputs/ --labels fox,owl,car --template "a {}" --top 1
    """
    with Report(json=json, verbose=verbose) as report, ImageWalk(report, ("chance", "label", "picture")) as walk:
        from clipgen.clip.classify import DEFAULT_TEMPLATES, check_labels, classify_features, label_features

        names = [name.strip() for line in labels for name in line.split(",")]
        templates = template or DEFAULT_TEMPLATES
        check_labels(names, templates)
        text_features: Tensor | None = None
        for path, features, scorer in walk.features(images, ClipChoice(model, device, offline)):
            if text_features is None:
                warn_cut(report, scorer, [each.replace("{}", name) for name in names for each in templates])
                text_features = label_features(scorer.encoder, names, templates)
            best = classify_features(scorer.encoder, features, names, text_features)[:top]
            for guess in best:
                walk.row(f"{100 * guess.probability:.1f}%", guess.label, path)
            walk.event(path=str(path), labels=[vars(guess) for guess in best])
