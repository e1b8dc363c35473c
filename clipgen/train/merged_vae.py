"""An AutoencoderTiny with its outermost layers merged: the same function, trained at half the cost.

The outermost stages of the 16-fold autoencoder have no residual blocks, hence no activation between their two
convolutions. Two linear convolutions in a row are one convolution:

    encoder:  Conv(3 -> W, 3 x 3), Conv(W -> W, 3 x 3, stride 2)               =  Conv(3 -> W, 5 x 5, stride 2)
    decoder:  nearest x2, Conv(W -> W, 3 x 3), Conv(W -> 3, 3 x 3)             =  nearest x2, Conv(W -> 3, 5 x 5)

Nearest upsampling before a 5 x 5 convolution needs no full-size features either: each of the four output phases is a
3 x 3 convolution of the features before upsampling (sub-pixel convolution, Shi et al. 2016, arXiv 1609.05158).
Both forms agree except within two pixels of the border, where the unmerged form pads its intermediate features.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor, nn

# Which of the three low-resolution columns each of the five taps of a full-size kernel falls on, for either phase.
PHASES = torch.tensor([[[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
                       [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]], dtype=torch.float32)  # fmt: skip


class MergedVae(nn.Module):
    """The layers of an AutoencoderTiny, with the outermost ones merged where no residual block lies between them."""

    def __init__(self, vae: AutoencoderTiny) -> None:
        super().__init__()
        self.config = vae.config
        encoder, decoder = list(vae.encoder.layers), list(vae.decoder.layers)
        if vae.config.num_encoder_blocks[0] == 0:
            encoder[:2] = [merged_downsampling(*encoder[:2])]
        if vae.config.num_decoder_blocks[-1] == 0:
            decoder[-3:] = [merged_upsampling(*decoder[-2:])]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode(self, images: Tensor) -> Tensor:
        """Returns latents [B, C, h, w] of images [B, 3, H, W] in [-1, 1]."""
        latents: Tensor = self.encoder(images.add(1).div(2))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Returns images [B, 3, H, W], about -1 to 1, of latents [B, C, h, w]."""
        images: Tensor = self.decoder(torch.tanh(latents / 3) * 3)
        return images.mul(2).sub(1)

    @torch.no_grad()
    def unmerged(self) -> AutoencoderTiny:
        """Returns the AutoencoderTiny with these weights."""
        vae = AutoencoderTiny.from_config(self.config).to(next(self.parameters()).dtype)
        encoder, decoder = list(self.encoder), list(self.decoder)
        if isinstance(encoder[0], nn.Conv2d) and encoder[0].kernel_size == (5, 5):
            encoder[:1] = split_downsampling(encoder[0])
        if isinstance(decoder[-1], SubpixelConv):
            decoder[-1:] = [vae.decoder.layers[-3], *split_upsampling(decoder[-1])]
        vae.encoder.layers.load_state_dict(nn.Sequential(*encoder).state_dict())
        vae.decoder.layers.load_state_dict(nn.Sequential(*decoder).state_dict())
        return vae

    def save_pretrained(self, folder: Path) -> None:
        """Writes the AutoencoderTiny with these weights."""
        self.unmerged().save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: Path) -> MergedVae:
        """Reads an AutoencoderTiny."""
        return cls(AutoencoderTiny.from_pretrained(folder))


class SubpixelConv(nn.Conv2d):
    """Nearest upsampling by 2 and a 5 x 5 convolution: [B, C, h, w] -> [B, O, 2h, 2w]."""

    def forward(self, features: Tensor) -> Tensor:
        """Convolves each of the four output phases at the input's size and interleaves them."""
        phases = PHASES.to(features)
        # [O, 2, 2, C, 3, 3]: the kernel of each phase; PHASES adds up the taps that fall on one input pixel
        kernels = torch.einsum("oihw,prh,qcw->opqirc", self.weight, phases, phases)
        assert self.bias is not None
        output = F.conv2d(features, kernels.flatten(0, 2), self.bias.repeat_interleave(4), padding=1)  # [B, 4 O, h, w]
        return F.pixel_shuffle(output, 2)


@torch.no_grad()
def merged_downsampling(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Merges Conv(3 -> W) and Conv(W -> W, stride 2, no bias) into Conv(3 -> W, 5 x 5, stride 2)."""
    merged = nn.Conv2d(first.in_channels, second.out_channels, 5, stride=2, padding=2)
    assert first.bias is not None
    assert merged.bias is not None
    merged.weight.copy_(compose(first.weight, second.weight))
    merged.bias.copy_(second.weight.sum((2, 3)) @ first.bias)
    return merged.requires_grad_(first.weight.requires_grad)  # a frozen encoder stays frozen


@torch.no_grad()
def merged_upsampling(first: nn.Conv2d, second: nn.Conv2d) -> SubpixelConv:
    """Merges nearest upsampling, Conv(W -> W, no bias) and Conv(W -> 3) into one SubpixelConv."""
    merged = SubpixelConv(first.in_channels, second.out_channels, 5, padding=2)
    assert second.bias is not None
    assert merged.bias is not None
    merged.weight.copy_(compose(first.weight, second.weight))
    merged.bias.copy_(second.bias)
    return merged


@torch.no_grad()
def split_downsampling(merged: nn.Conv2d) -> list[nn.Module]:
    """Splits a merged downsampling into its two convolutions; the first copies shifted colours and a one."""
    width, colours = merged.out_channels, merged.in_channels
    first, second = nn.Conv2d(colours, width, 3, padding=1), nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
    inner, outer = split_input(merged.weight)
    used = len(inner)
    assert first.bias is not None
    assert merged.bias is not None
    for tensor in (first.weight, first.bias, second.weight):
        tensor.zero_()
    first.weight[:used], second.weight[:, :used] = inner, outer
    first.bias[used], second.weight[:, used, 1, 1] = 1.0, merged.bias  # a channel that is one carries the bias
    return [first, second]


@torch.no_grad()
def split_upsampling(merged: SubpixelConv) -> list[nn.Module]:
    """Splits a SubpixelConv into the two convolutions after the upsampling; the second adds up shifted colours."""
    width, colours = merged.in_channels, merged.out_channels
    first, second = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.Conv2d(width, colours, 3, padding=1)
    inner, outer = split_output(merged.weight)
    assert second.bias is not None
    assert merged.bias is not None
    first.weight.zero_(), second.weight.zero_()
    first.weight[: len(inner)], second.weight[:, : len(inner)] = inner, outer
    second.bias.copy_(merged.bias)
    return [first, second]


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Returns the kernel [O, I, 5, 5] of a convolution [M, I, 3, 3] followed by another [O, M, 3, 3]."""
    # Correlation with `first` then `second`: taps add up, which is a full convolution of the two kernels.
    return F.conv2d(first.transpose(0, 1), second.flip(2, 3), padding=2).transpose(0, 1)


def split_input(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Splits [O, I, 5, 5] into [9 I, I, 3, 3] and [O, 9 I, 3, 3] whose composition it is; the first copies inputs."""
    first = _shifts(kernel.shape[1])
    second = _taps(kernel).flatten(1, 3)  # [O, I, 3, 3, 3, 3] -> [O, 9 I, 3, 3]
    return first, second


def split_output(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Splits [O, I, 5, 5] into [9 O, I, 3, 3] and [O, 9 O, 3, 3] whose composition it is; the second adds up shifts."""
    first = _taps(kernel).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)  # [9 O, I, 3, 3]
    return first, _shifts(kernel.shape[0]).transpose(0, 1)


def _shifts(channels: int) -> Tensor:
    """Returns [9 C, C, 3, 3]: each channel copied to nine, shifted to each place of a 3 x 3 kernel."""
    return torch.eye(9 * channels).view(9 * channels, channels, 3, 3)


def _taps(kernel: Tensor) -> Tensor:
    """Distributes [O, I, 5, 5] over [O, I, shift y, shift x, 3, 3] so that shift + place is the tap, mostly shift 1."""
    taps = kernel.new_zeros(*kernel.shape[:2], 3, 3, 3, 3)
    for y in range(5):
        for x in range(5):
            place_y, place_x = min(max(y - 1, 0), 2), min(max(x - 1, 0), 2)
            taps[:, :, y - place_y, x - place_x, place_y, place_x] = kernel[:, :, y, x]
    return taps
