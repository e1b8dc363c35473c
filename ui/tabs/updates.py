"""From the events of a job to updates of the output panel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from clipgen.errors import ClipgenError

from ..form import values
from ..form.paste import looks_pasted
from ..html import output_panel
from ..html.curve import curve_chart
from ..image_info import Curve, CurvePoint, ImageInfo
from ..job_events import FinishedImage, JobStopped, Loading, Waiting
from ..worker import Worker

PREVIEW_SECONDS = 0.25  # least time between two previews


@dataclass(frozen=True)
class PanelUpdate:
    """What the page shows next; None leaves a part as it is.

    Args:
        panel: HTML of the output panel.
        busy: Whether a job is running: the Stop button replaces the Generate button.
        message: Text of the message line, "" to clear it.
        images: The finished images of the run so far.
        kind: Kind of the message: error, done or hint.
    """

    panel: str | None = None
    busy: bool = True
    message: str | None = None
    images: tuple[ImageInfo, ...] | None = None
    kind: str = "error"


class StepTracker:
    """Collects the similarity curve of each image of a run, and limits how often previews are sent."""

    def __init__(self) -> None:
        self.curves: dict[int, list[CurvePoint]] = {}
        self._last_preview = 0.0

    def add(self, step: Any, image: int, variant: str = "", unguided_curve: Curve = ()) -> PanelUpdate | None:
        """Records a step; returns the update with its preview, None if it is not shown.

        Args:
            step: The pipeline's Step.
            image: Index of the image of the batch whose preview is shown.
            variant: Name of the variant of a comparison.
            unguided_curve: The curve of the unguided image of a comparison.
        """
        curve = self.curves.setdefault(step.image, [])
        if step.similarity is not None:
            curve.append(CurvePoint(step.index, step.similarity, step.percentile))
        is_last = step.index == step.steps - 1
        if step.image != image or (monotonic() - self._last_preview < PREVIEW_SECONDS and not is_last):
            return None
        self._last_preview = monotonic()
        preview = output_panel.data_uri(step.preview())
        chart = curve_chart(curve, step.steps, unguided_curve)
        return PanelUpdate(output_panel.generating(preview, step.index + 1, step.steps, step.eta, chart, variant))


def generate_updates(worker: Worker, raw: Sequence[Any], session: str) -> Iterator[PanelUpdate]:
    """Yields the updates while the images of the form are generated; errors are shown as messages."""
    yield PanelUpdate(message="")
    try:
        form = values.read(raw)
        if isinstance(form["prompt"], str) and looks_pasted(form["prompt"]):
            yield PanelUpdate(message="This text is settings, not a prompt. Press Load settings.", busy=False)
            return
        settings = worker.build_settings(form)
    except ClipgenError as error:
        yield PanelUpdate(message=str(error), busy=False)
        return
    tracker, images = StepTracker(), list[ImageInfo]()
    try:
        for event in worker.generate(settings, session):
            update = _update(event, tracker, images, settings.images)
            if update is not None:
                yield update
    except ClipgenError as error:
        yield PanelUpdate(_last_image(images), busy=False, message=str(error))
        return
    yield PanelUpdate(busy=False)


def _update(event: Any, tracker: StepTracker, images: list[ImageInfo], count: int) -> PanelUpdate | None:
    """Returns the update for one event; a finished image is appended to `images`."""
    match event:
        case Waiting(position):
            return PanelUpdate(output_panel.waiting(position))
        case Loading(model, percent):
            return PanelUpdate(output_panel.loading(model, percent))
        case JobStopped():
            message = f"Stopped after {len(images)} of {count} pictures." if count > 1 else "Stopped."
            return PanelUpdate(_last_image(images), message=message, kind="done")
        case FinishedImage():
            images.append(ImageInfo.from_job(event, tracker.curves.get(event.result.index, ())))
            return PanelUpdate(_last_image(images), images=tuple(images))
    return tracker.add(event, image=len(images))


def _last_image(images: Sequence[ImageInfo]) -> str:
    if not images:
        return output_panel.empty()
    return output_panel.finished(images[-1], f"{len(images)} of {len(images)}" if len(images) > 1 else "")
