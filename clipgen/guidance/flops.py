"""What the parts of a model cost, in FLOP: from a table, or counted once; never with a stopwatch.

Two FLOP are a multiplication with its addition. The same model has the same price on every machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.latent_head import LatentHead
from clipgen.families import Conditioning, Family
from clipgen.guidance.latent_decoder import available_decoders, latent_decoder


@dataclass(frozen=True)
class Cost:
    """FLOP of one network for one picture: `forward`, and `backward` from there to its input, weights left alone."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        """FLOP of a forward and a backward pass."""
        return self.forward + self.backward

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward)


@dataclass(frozen=True)
class Growth:
    """How a network's cost grows with its latents: TFLOP forward = fixed + linear n + square n^2.

    n counts latents in units of 64 x 64. Back to the input convolutions cost what they cost forward, attention twice
    that, and what never sees the latents nothing.
    """

    fixed: float
    linear: float
    square: float

    def at(self, latents: int) -> Cost:
        """Returns the cost for so many latents."""
        n = latents / 64**2
        linear, square = self.linear * n, self.square * n * n
        return Cost(1e12 * (self.fixed + linear + square), 1e12 * (linear + 2 * square))


SD15_UNET = Growth(0.003008, 0.677771, 0.122495)
SDXL_UNET = Growth(0.052531, 1.489272, 0.046976)
KL_DECODER = Growth(0.0, 2.480159, 0.034360)
TINY_DECODER = Growth(0.0, 0.141350, 0.0)
KNOWN = {  # by the number of their weights, for autoencoders both halves
    859_520_964: SD15_UNET,
    2_567_463_684: SDXL_UNET,
    83_653_863: KL_DECODER,
    2_445_063: TINY_DECODER,
}


@dataclass(frozen=True)
class ModelCosts:
    """What a budget has to know of a loaded model, at one size of picture.

    `denoiser` = one pass, `decoder` = the model's own, `guide` = the guide decoder, `view` = one view for all guiding
    CLIPs. `prediction` and `distilled` are the family's; `back_propagates` = gradients can go through the denoiser;
    `head` = the latent head where it guides in place of decoder and views.
    """

    denoiser: Cost
    decoder: Cost
    guide: Cost
    view: Cost
    prediction: str
    distilled: bool
    back_propagates: bool = True
    head: Cost | None = None


def model_costs(
    family: Family,
    told: Conditioning,
    encoders: Sequence[ClipEncoder],
    size: tuple[int, int],
    decoder: str = "auto",
    back_propagates: bool = True,
    head: LatentHead | None = None,
) -> ModelCosts:
    """Returns the facts of a model for pictures of `size` (width, height); each network is counted once.

    `told` is what the denoiser is told of any one prompt, tensors [1, ...]; `encoders` are the CLIPs that guide, and
    `decoder` names the guide decoder, `head` guides in its place. Raises SettingsError for a decoder that the model has
    not got.
    """
    shape, side = family.latent_shape(*size), encoders[0].image_size
    name = next(iter(available_decoders(family))) if decoder == "auto" or head is not None else decoder
    return ModelCosts(
        denoiser=_once(family, ("denoiser", shape), lambda: denoiser_cost(family, told, shape)),
        decoder=_once(family, ("full", shape), lambda: decoder_cost(family, "full", shape, side)),
        guide=_once(family, (name, shape, side), lambda: decoder_cost(family, name, shape, side)),
        view=sum((_once(each, ("view",), partial(view_cost, each)) for each in encoders), Cost(0, 0)),
        prediction=family.prediction_type,
        distilled=family.distilled,
        back_propagates=back_propagates,
        head=None if head is None else _once(family, ("head", shape), lambda: head_cost(head, shape)),
    )


_COUNTED: WeakKeyDictionary[Any, dict[tuple[Any, ...], Cost]] = WeakKeyDictionary()  # for as long as a model lives


def _once(owner: Any, key: tuple[Any, ...], count: Callable[[], Cost]) -> Cost:
    known = _COUNTED.setdefault(owner, {})
    if key not in known:
        known[key] = count()
    return known[key]


def denoiser_cost(family: Family, told: Conditioning, shape: tuple[int, int, int]) -> Cost:
    """Returns what one pass for latents of that shape [C, h, w] costs."""
    networks = [part for name, part in vars(family).items() if isinstance(part, nn.Module) and name != "vae"]
    known = [KNOWN[count] for network in networks if (count := _weights(network)) in KNOWN]
    if known:
        return known[0].at(shape[1] * shape[2])
    twin, timestep = without_weights(family), torch.zeros((), device="meta")
    told = {name: tensor.to("meta") for name, tensor in told.items()}
    return counted(lambda latents: twin.predict(latents, timestep, told), (1, *shape), "meta")


def decoder_cost(family: Family, name: str, shape: tuple[int, int, int], side: int) -> Cost:
    """Returns what the guide decoder of that name costs for latents [C, h, w]; `side` is that of CLIP's input."""
    weights = _weights(family.vae)
    if name in ("tiny", "full") and weights in KNOWN:
        return KNOWN[weights].at(shape[1] * shape[2])
    twin = without_weights(family)
    twin.latent_rgb = torch.zeros(shape[0], 3, device="meta")  # no colours are fitted to a model without weights
    return counted(latent_decoder(twin, name, side), (1, *shape), "meta")


def view_cost(encoder: ClipEncoder) -> Cost:
    """Returns what one view costs a CLIP; counted with its real weights, as its towers look into their tensors."""
    return counted(encoder.image_features, (1, 3, encoder.image_size, encoder.image_size), str(encoder.model.device))


def head_cost(head: LatentHead, shape: tuple[int, int, int]) -> Cost:
    """Returns what one look of a latent head at latents [C, h, w] costs; counted with its real weights."""
    device = head.model.device
    return counted(lambda latents: head.features(latents, torch.ones(1, device=device)), (1, *shape), str(device))


def counted(call: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: str) -> Cost:
    """Returns what a differentiable call costs on an input of that shape; on `meta` nothing is computed.

    Attention runs as plain products, for not every device's own kernel is counted.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    leaf = torch.zeros(shape, device=device, requires_grad=True)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = call(leaf.clone())
        forward = counter.get_total_flops()
        torch.autograd.grad(output.float().sum(), leaf)
    return Cost(forward, counter.get_total_flops() - forward)


def without_weights(family: Family) -> Family:
    """Returns a twin of a model's adapter, whose networks know the shapes of their weights and nothing else."""
    twin, memo = copy.copy(family), dict[int, Any]()
    for name, part in vars(family).items():
        if isinstance(part, nn.Module):
            memo |= {id(tensor): tensor.detach().to("meta") for tensor in part.buffers()}
            memo |= {id(tensor): _weightless(tensor) for tensor in part.parameters()}
            setattr(twin, name, copy.deepcopy(part, memo))
    return twin


def _weightless(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().to("meta"), requires_grad=False)


def _weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())
