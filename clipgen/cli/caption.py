"""`clipgen caption`: pictures in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipgen.cli.looking import STORYBOOK, Clip, Device, Images, Json, Model, Offline, Verbose, Walk
from clipgen.cli.report import Report

if TYPE_CHECKING:
    from clipgen.clip.captioner import Captioner


def caption(
    images: Images,
    model: Model = STORYBOOK,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what pictures show.

    By a model that brings a captioner; clipgen train captioner makes one.

    clipgen caption fox.png -m ./runs/storybook/storybook
    clipgen caption outputs/
    """
    with Report(json=json, verbose=verbose) as report, Walk(report, ("picture", "caption")) as walk:
        from clipgen.device import pick_device
        from clipgen.models.captioner import load_captioner

        writer: Captioner = load_captioner(model, pick_device(device), offline=offline)
        for path, features, scorer in walk.seen(images, Clip(model, device, offline)):
            [text] = writer.write(features[None], scorer.encoder.tokenizer)
            walk.row(path, text)
            walk.tell(path=str(path), caption=text)
