"""Makes a diffusers scheduler from a scheduler name and a model's scheduler config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clipgen.sampling.prediction import VARIANCE_PRESERVING, read_prediction_type
from clipgen.sampling.schedulers import SchedulerSpec, dynamic_mu, flow_shift, scheduler_for


def make_scheduler(
    name: str,
    config: Mapping[str, Any],
    steps: int,
    device: torch.device,
    *,
    image_seq_len: int | None = None,
    sigmas: Sequence[float] | None = None,
    mu: float | None = None,
) -> Any:
    """Returns a new diffusers scheduler with its timesteps set.

    `name` is any name that schedulers.find_scheduler knows, `config` the scheduler config of the model. Three arguments
    matter for flow models only: `image_seq_len`, the number of image tokens that the denoiser sees, from which a config
    with use_dynamic_shifting computes the shift, `mu`, the shift in its place, and `sigmas` (as many as `steps`), the
    noise levels before the shift, which FlowMatchEuler and FlowMatchLCM take in place of their own. Raises
    SettingsError if the scheduler cannot run the model's prediction type.
    """
    import diffusers

    prediction_type = read_prediction_type(config)
    spec = scheduler_for(name, prediction_type)
    if prediction_type == "flow" and mu is None and config.get("use_dynamic_shifting"):
        mu = dynamic_mu(config, image_seq_len)
    flow_config = _flow_config(spec, config, mu) if prediction_type == "flow" else {}
    scheduler = getattr(diffusers, spec.class_name).from_config({**config, **spec.options, **flow_config})
    arguments = _timestep_arguments(scheduler, mu, sigmas) if spec.needs_flow else {}
    scheduler.set_timesteps(steps, device=device, **arguments)
    if spec.class_name not in VARIANCE_PRESERVING:
        # Otherwise the scheduler looks up its first step by timestep. Karras sigmas can round to two equal timesteps,
        # and then it starts at the second one.
        scheduler.set_begin_index(0)
    return scheduler


def _flow_config(spec: SchedulerSpec, config: Mapping[str, Any], mu: float | None) -> dict[str, Any]:
    """Returns the config keys with which a scheduler runs a flow model.

    FlowMatch schedulers shift dynamically by themselves; the DPM family gets the shift as a number.
    """
    shift = flow_shift(config, mu)
    return {
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "shift": shift,
        "flow_shift": shift,
        "use_dynamic_shifting": spec.needs_flow and config.get("use_dynamic_shifting", False),
    }


def _timestep_arguments(scheduler: Any, mu: float | None, sigmas: Sequence[float] | None) -> dict[str, Any]:
    """Returns `sigmas` and `mu`, each if it is given and this scheduler's set_timesteps accepts it."""
    accepted = inspect.signature(scheduler.set_timesteps).parameters
    given = {"sigmas": sigmas, "mu": mu}
    return {name: value for name, value in given.items() if name in accepted and value is not None}
