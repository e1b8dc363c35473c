"""ClipGuidance: CLIP guidance for any diffusers pipeline, as a context manager.

    with ClipGuidance(pipe, "a fox in snow", scale=0.3):
        image = pipe("a fox in snow").images[0]

It replaces `scheduler.step`, which every pipeline calls once per step: the new one corrects the model output, then
calls the original. A forward hook on the denoiser records its outputs, conditional and unconditional.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from clipgen.attach.guided_step import GuidedStep, restore_step
from clipgen.attach.refusals import check_pipeline, check_scheduler, find_denoiser, refuse_inference_mode
from clipgen.settings.settings import Note


class ClipGuidance:
    """Guides all images that a diffusers pipeline generates while the context is open, then restores the pipeline.

    Args:
        pipe: a pipeline that generates images from latents: with a scheduler, a denoiser and a VAE.
        prompt: what the images should show, one text, or one per prompt of the pipeline call.
        scale: clip_guidance_scale, 0 to 1.
        seed: image k draws its views from seed + k.
        fields: Settings fields: cutouts, guidance_start, guidance_stop, guidance_every, guide_decoder, guard
            (two-key), guide, like, clip_models.

    Raises SettingsError, ModelError, ModelNotFound.
    """

    def __init__(
        self, pipe: Any, prompt: str | Sequence[str], *, scale: float = 0.25, seed: int = 0, **fields: Any
    ) -> None:
        check_pipeline(pipe)
        self.pipe = pipe
        self.denoiser = find_denoiser(pipe)
        self.guidance = GuidedStep(pipe, prompt, scale, seed, fields)
        self._scheduler: Any = None  # the one whose `step` is replaced
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        refuse_inference_mode()
        self._replace_step()
        hook = self.denoiser.register_forward_hook(self._record_output, with_kwargs=True)
        self._undo.append(hook.remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for undo in reversed(self._undo):
            undo()
        self.guidance.forget()
        self._undo, self._scheduler = [], None

    def curve(self, image: int = 0) -> tuple[tuple[int, float], ...]:
        """Returns (step index, cosine similarity to the prompt) of each guided step of an image of the last call."""
        return self.guidance.curve(image)

    def notes(self) -> list[Note]:
        """Returns warnings about the last call: gradients that were not finite, a scheduler that clips x0."""
        return self.guidance.notes()

    def _replace_step(self) -> None:
        """Replaces the `step` of the pipeline's scheduler; raises SettingsError for one that cannot be guided."""
        scheduler, attributes = self.pipe.scheduler, dict(vars(self.pipe.scheduler))
        check_scheduler(scheduler)
        scheduler.step = self.guidance.wrap(scheduler)
        self._undo.append(functools.partial(restore_step, scheduler, attributes))
        self._scheduler = scheduler

    def _record_output(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook: records the denoiser's output and inputs, and notices a scheduler that replaced the first."""
        self.guidance.outputs.append(_detached(output[0]))
        self.guidance.inputs = kwargs
        if self.pipe.scheduler is not self._scheduler:
            self._replace_step()


def _detached(output: Any) -> Any:
    """Returns an output of a denoiser, a tensor or a list of them, without its graph."""
    return output.detach() if isinstance(output, Tensor) else [_detached(part) for part in output]
