"""What the networks of a model cost in FLOP, from a table or counted once; never measured with a clock.

A multiplication with its addition counts as two FLOP. The same model costs the same on every machine, so a budget buys
the same guidance everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.latent_head import LatentHead
from clipgen.families import Conditioning, Family
from clipgen.guidance.latent_decoder import latent_decoder, resolve_decoder_name
from clipgen.guidance.latent_gradient import choose_latent_head
from clipgen.guidance.quantisation import is_quantised
from clipgen.guidance.targets import GuidanceEncoders
from clipgen.settings.settings import Settings


@dataclass(frozen=True)
class Cost:
    """FLOP of one network for one image: its forward pass, and its backward pass to the input (not to the weights)."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        """FLOP of a forward and a backward pass."""
        return self.forward + self.backward

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward)


@dataclass(frozen=True)
class CostByLatents:
    """The cost of a network as a function of its number of latents: TFLOP forward = fixed + linear n + square n^2.

    n counts latents in units of 64 x 64. `linear` are convolutions, whose backward pass costs as much as the forward
    pass; `square` is attention, whose backward pass costs twice as much; `fixed` never depends on the latents, so it
    has no backward pass.
    """

    fixed: float
    linear: float
    square: float

    def at(self, latents: int) -> Cost:
        """Returns the cost for this number of latents, h * w."""
        n = latents / 64**2
        linear, square = self.linear * n, self.square * n * n
        return Cost(1e12 * (self.fixed + linear + square), 1e12 * (linear + 2 * square))


SD15_UNET = CostByLatents(0.003008, 0.677771, 0.122495)
SDXL_UNET = CostByLatents(0.052531, 1.489272, 0.046976)
KL_DECODER = CostByLatents(0.0, 2.480159, 0.034360)
TINY_DECODER = CostByLatents(0.0, 0.141350, 0.0)
KNOWN_NETWORKS = {  # by number of weights; for autoencoders those of encoder and decoder
    859_520_964: SD15_UNET,
    2_567_463_684: SDXL_UNET,
    83_653_863: KL_DECODER,
    2_445_063: TINY_DECODER,
}


@dataclass(frozen=True)
class ModelCosts:
    """What a budget has to know of a loaded model, for images of one size.

    `denoiser` is one pass of the denoiser, `decoder` the full VAE decoder, `guide_decoder` the decoder for CLIP, `view`
    one view for all guiding CLIPs. `prediction_type` and `distilled` are those of the family; `back_propagates` =
    gradients can go through the denoiser; `latent_head` is set if a latent head guides instead of decoder and views;
    `unguided_scale` = the largest guidance_scale without an unconditional pass.
    """

    denoiser: Cost
    decoder: Cost
    guide_decoder: Cost
    view: Cost
    prediction_type: str
    distilled: bool
    back_propagates: bool = True
    latent_head: Cost | None = None
    unguided_scale: float = 1.0


def model_costs(
    settings: Settings, family: Family, conditioning: Conditioning, encoders: GuidanceEncoders
) -> ModelCosts:
    """Returns the costs of a model for the image size and the guide_decoder of the settings, which must be filled.

    `conditioning` is that of any one prompt, tensors [1, ...]; `encoders` are those of the settings. Each network is
    counted once per size and kept. Raises SettingsError for a guide_decoder that the model does not have.
    """
    assert settings.width is not None, "Settings.with_defaults fills the width"
    assert settings.height is not None, "Settings.with_defaults fills the height"
    shape, image_size = family.latent_shape(settings.width, settings.height), encoders.guiding[0].image_size
    head = choose_latent_head(settings, encoders, family)
    name = resolve_decoder_name(family, "auto" if head is not None else settings.guide_decoder or "auto")
    return ModelCosts(
        denoiser=_cached(family, ("denoiser", shape), lambda: denoiser_cost(family, conditioning, shape)),
        decoder=_cached(family, ("full", shape), lambda: decoder_cost(family, "full", shape, image_size)),
        guide_decoder=_cached(family, (name, shape, image_size), lambda: decoder_cost(family, name, shape, image_size)),
        view=sum((_cached(each, ("view",), partial(view_cost, each)) for each in encoders.guiding), Cost(0, 0)),
        prediction_type=family.prediction_type,
        distilled=family.distilled,
        back_propagates=not is_quantised(family.denoiser),
        latent_head=None if head is None else _cached(family, ("head", shape), lambda: head_cost(head, shape)),
        unguided_scale=1.0 - family.cfg_scale(0.0),
    )


# By family or CLIP, until it is freed.
_COSTS: WeakKeyDictionary[Any, dict[tuple[Any, ...], Cost]] = WeakKeyDictionary()


def _cached(owner: Any, key: tuple[Any, ...], count: Callable[[], Cost]) -> Cost:
    costs = _COSTS.setdefault(owner, {})
    if key not in costs:
        costs[key] = count()
    return costs[key]


def denoiser_cost(family: Family, conditioning: Conditioning, shape: tuple[int, int, int]) -> Cost:
    """Returns the cost of one pass of the denoiser for latents of shape [C, h, w]."""
    networks = [part for name, part in vars(family).items() if isinstance(part, nn.Module) and name != "vae"]
    known = [KNOWN_NETWORKS[count] for network in networks if (count := _count_weights(network)) in KNOWN_NETWORKS]
    if known:
        return known[0].at(shape[1] * shape[2])
    on_meta, timestep = without_weights(family), torch.zeros((), device="meta")
    conditioning = {name: tensor.to("meta") for name, tensor in conditioning.items()}
    return count_flops(lambda latents: on_meta.predict(latents, timestep, conditioning), (1, *shape), "meta")


def decoder_cost(family: Family, name: str, shape: tuple[int, int, int], image_size: int) -> Cost:
    """Returns the cost of a latent decoder for latents [C, h, w]; `image_size` is that of CLIP's input in pixels."""
    weights = _count_weights(family.vae)
    if name in ("tiny", "full") and weights in KNOWN_NETWORKS:
        return KNOWN_NETWORKS[weights].at(shape[1] * shape[2])
    on_meta = without_weights(family)
    on_meta.latent_rgb = torch.zeros(shape[0], 3, device="meta")  # a matrix cannot be fitted without weights
    return count_flops(latent_decoder(on_meta, name, image_size), (1, *shape), "meta")


def view_cost(encoder: ClipEncoder) -> Cost:
    """Returns the cost of one view for a CLIP; counted with its real weights, as transformers reads tensor values."""
    return count_flops(
        encoder.image_features, (1, 3, encoder.image_size, encoder.image_size), str(encoder.model.device)
    )


def head_cost(head: LatentHead, shape: tuple[int, int, int]) -> Cost:
    """Returns the cost of a latent head for latents [C, h, w]; counted with its weights, like a CLIP."""
    device = head.model.device
    return count_flops(lambda latents: head.features(latents, torch.ones(1, device=device)), (1, *shape), str(device))


def count_flops(function: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: str) -> Cost:
    """Returns the cost of a differentiable function of one tensor of this shape; on `meta` nothing is computed.

    Attention runs as plain matrix products: the counter does not know the fused kernels of every device.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    leaf = torch.zeros(shape, device=device, requires_grad=True)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = function(leaf.clone())
        forward = counter.get_total_flops()
        torch.autograd.grad(output.float().sum(), leaf)
    return Cost(forward, counter.get_total_flops() - forward)


def without_weights(family: Family) -> Family:
    """Returns a copy of a model family with its networks on the meta device: shapes without memory."""
    on_meta, memo = copy.copy(family), dict[int, Any]()
    for name, part in vars(family).items():
        if isinstance(part, nn.Module):
            # deepcopy takes the tensors that it finds in `memo`, so the weights are never copied.
            memo |= {id(tensor): tensor.detach().to("meta") for tensor in part.buffers()}
            memo |= {id(tensor): _meta_parameter(tensor) for tensor in part.parameters()}
            setattr(on_meta, name, copy.deepcopy(part, memo))
    return on_meta


def _meta_parameter(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().to("meta"), requires_grad=False)


def _count_weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())
