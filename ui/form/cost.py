"""What one image will cost: time compared with no guidance, and seconds at the speed measured so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clipgen.errors import ClipgenError

from ..html import output_panel
from ..speed import flops_of
from ..worker import Worker
from . import values

ANY_PROMPT = "a picture"  # the cost does not depend on the prompt
MIN_FACTOR = 1.05  # below this the extra cost is called "hardly longer"
COST_FIELDS = (
    *("model", "width", "height", "steps", "scheduler", "eta", "guidance_scale", "cfg_start", "cfg_stop"),
    *("guidance", "budget", "clip_guidance_scale", "cutouts", "guidance_start", "guidance_stop", "guidance_every"),
    *("through_unet", "guide_decoder", "candidates", "particles", "iterations", "guard", "clip_models"),
)


def cost_line(worker: Worker, raw: Sequence[Any]) -> str:
    """Returns the cost of one image as HTML, "" if the form is not valid or its model is not loaded.

    Errors in the form are reported when an image is generated, not here.
    """
    from clipgen.guidance.budget import price

    pipe = worker.pipeline
    if pipe is None or pipe.scorer is None:
        return ""
    try:
        form = {**values.read(raw), "prompt": ANY_PROMPT, "preset": None, "like": [], "vary": None}
        settings = worker.build_settings(form)
        if settings.model != worker.model_name:
            return ""
        settings, _ = pipe.resolve_budget(settings.replace(images=1).with_defaults(pipe.defaults))
        factor = price(settings, pipe.model_costs(settings))
        seconds = worker.speed.seconds(pipe, flops_of(pipe, settings))
    except ClipgenError:
        return ""
    return format_cost(factor, seconds)


def format_cost(factor: float, seconds: float | None) -> str:
    """Returns the cost of one image as HTML.

    Args:
        factor: Time divided by the time of an unguided image.
        seconds: Estimated seconds, None before the first image.
    """
    comparison = f"{factor:.1f} × as long as" if factor >= MIN_FACTOR else "hardly longer than"
    comparison = f"{comparison} without CLIP guidance" if factor > 1 else ""
    if seconds is not None:
        time = f"About <b>{output_panel.duration(seconds)}</b> per picture"
        text = ", ".join(part for part in (time, comparison) if part) + "."
    else:
        text = f"A picture takes {comparison}. Seconds are known after the first one." if comparison else ""
    return f'<p class="cost">{text}</p>' if text else ""
