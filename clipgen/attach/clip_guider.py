"""ClipGuider: CLIP guidance as the guider component of diffusers' modular pipelines.

    pipe.update_components(guider=ClipGuider(pipe, "a fox in snow", scale=0.3))

A guider combines the conditional and the unconditional prediction, but sees neither the latents nor the scheduler, and
some pipelines rescale what it returns. So ClipGuider leaves the combination to another guider, such as
ClassifierFreeGuidance, and corrects the scheduler's next step.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from diffusers.guiders.guider_utils import BaseGuidance
from torch.nn import Module

from clipgen.attach.guided_step import GuidedStep, restore_step
from clipgen.attach.refusals import check_scheduler, refuse_inference_mode
from clipgen.settings.settings import Note


class ClipGuider(BaseGuidance):  # type: ignore[misc]  # diffusers has no types
    """Guides the images of a modular pipeline; see ClipGuidance for the arguments.

    Args:
        pipe: the modular pipeline, with its scheduler and VAE loaded.
        prompt: what the images should show, one text, or one per prompt of the pipeline call.
        guider: combines the predictions; by default the guider that the pipeline has.

    Raises SettingsError, ModelError, ModelNotFound.
    """

    _input_predictions = ["pred_cond", "pred_uncond"]  # noqa: RUF012  # as in diffusers' guiders

    def __init__(
        self,
        pipe: Any,
        prompt: str | Sequence[str],
        *,
        guider: Any = None,
        scale: float = 0.25,
        seed: int = 0,
        **fields: Any,
    ) -> None:
        check_scheduler(pipe.scheduler)
        super().__init__()
        self.register_to_config(prompt=prompt, scale=scale, seed=seed, **fields)
        self.pipe = pipe
        self.guider = pipe.guider if guider is None else guider
        self.guidance = GuidedStep(pipe, prompt, scale, seed, fields)

    def curve(self, image: int = 0) -> tuple[tuple[int, float], ...]:
        """Returns (step index, cosine similarity to the prompt) of each guided step of an image of the last call."""
        return self.guidance.curve(image)

    def notes(self) -> list[Note]:
        """Returns warnings about the last call: gradients that were not finite, a scheduler that clips x0."""
        return self.guidance.notes()

    def new(self, **changes: Any) -> ClipGuider:
        """Returns a ClipGuider of the same pipeline whose inner guider has these changes."""
        return ClipGuider(self.pipe, **{**self.config, "guider": self.guider.new(**changes)})

    def enable(self) -> None:
        """Enables classifier-free guidance."""
        self.guider.enable()

    def disable(self) -> None:
        """Disables classifier-free guidance, as distilled models need it; CLIP guidance stays on."""
        self.guider.disable()

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        """Begins a step."""
        super().set_state(step, num_inference_steps, timestep)
        self.guider.set_state(step, num_inference_steps, timestep)

    def prepare_inputs(self, data: Any) -> Any:
        """Returns one batch of inputs per prediction that the inner guider needs."""
        return self.guider.prepare_inputs(data)

    def prepare_inputs_from_block_state(self, data: Any, input_fields: Any) -> Any:
        """Returns one batch of inputs per prediction that the inner guider needs."""
        return self.guider.prepare_inputs_from_block_state(data, input_fields)

    def prepare_models(self, denoiser: Module) -> None:
        """Records the inputs of the denoiser, until `cleanup_models`."""
        self._hook = denoiser.register_forward_pre_hook(self._record_inputs, with_kwargs=True)
        self.guider.prepare_models(denoiser)

    def cleanup_models(self, denoiser: Module) -> None:
        """Removes the hook of `prepare_models`."""
        self.guider.cleanup_models(denoiser)
        self._hook.remove()

    def __call__(self, data: list[Any]) -> Any:
        """Returns the inner guider's output, and corrects the next step of the scheduler, which restores itself."""
        refuse_inference_mode()
        self.guidance.outputs = [batch.noise_pred for batch in data]
        scheduler, attributes = self.pipe.scheduler, dict(vars(self.pipe.scheduler))
        if "step" not in attributes:
            check_scheduler(scheduler)
            guided_step = self.guidance.wrap(scheduler)

            @functools.wraps(guided_step)
            def step_once(*args: Any, **options: Any) -> Any:
                restore_step(scheduler, attributes)
                return guided_step(*args, **options)

            scheduler.step = step_once
        return self.guider(data)

    @property
    def is_conditional(self) -> bool:
        """Whether the current batch is the conditional one."""
        return bool(self.guider.is_conditional)

    @property
    def num_conditions(self) -> int:
        """The number of predictions per step."""
        return int(self.guider.num_conditions)

    def _record_inputs(self, network: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.guidance.inputs = kwargs
