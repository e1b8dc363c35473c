"""What a picture will take: its work by the cost model, at the pace of the pictures that were drawn so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clipgen.errors import ClipgenError

from . import form, stage
from .pace import work_of
from .workshop import Workshop

ANY = "a picture"  # the words of a prompt cost nothing
MERELY = 1.05  # times below which a price is hardly one
COSTS = (
    *("model", "width", "height", "steps", "scheduler", "eta", "guidance_scale", "cfg_start", "cfg_stop"),
    *("guidance", "budget", "clip_guidance_scale", "cutouts", "guidance_start", "guidance_stop", "guidance_every"),
    *("through_unet", "guide_decoder", "candidates", "particles", "iterations", "guard", "clip_models"),
)


def told(workshop: Workshop, raw: Sequence[Any]) -> str:
    """Returns what a picture of the form will take, in HTML: beside an unguided one, and in seconds once known.

    What the form gets wrong is said when it is drawn, not here.
    """
    from clipgen.guidance.budget import price

    pipe = workshop.pipeline
    if pipe is None or pipe.scorer is None:
        return ""
    try:
        values = form.read(raw)
        settings = workshop.settings({**values, "prompt": ANY, "preset": None, "like": [], "vary": None})
        if settings.model != workshop.model:
            return ""
        filled, _ = pipe.within_budget(settings.replace(images=1).with_defaults(pipe.defaults))
        times = price(filled, pipe.facts(filled))
        seconds = workshop.pace.seconds(pipe, work_of(pipe, filled))
    except ClipgenError:
        return ""
    return line(times, seconds)


def line(times: float, seconds: float | None) -> str:
    """Returns the price of a picture in words; `times` is that of an unguided one."""
    beside = f"{times:.1f} × as long as" if times >= MERELY else "hardly longer than"
    beside = f"{beside} without CLIP" if times > 1 else ""
    if seconds is None:
        told = f"A picture takes {beside}. Seconds are known after the first one." if beside else ""
    else:
        told = ", ".join(part for part in (f"About <b>{stage.duration(seconds)}</b> a picture", beside) if part) + "."
    return f'<p class="price">{told}</p>' if told else ""
