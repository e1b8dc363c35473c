"""The autoencoder of storybook: diffusers' AutoencoderTiny, 16-fold, 16 latent channels.

Losses: L1 at three scales, L1 of edges, a light pull of the latents' mean square towards one, and scale equivariance:
halved latents must decode to the halved image, which makes latents smooth and easier to denoise (Skorokhodov et al.
2025, arXiv 2502.14831). Gaussian noise is added to the latents, so that the decoder tolerates the denoiser's errors.
Most crops of rendered scenes lie on a thing, since backgrounds are learnt first.
No normalisation layers: with group norm the colours of flat areas were still unlearnt after 500 steps, and a third of
a step on a CPU went into its gradient (LOG.md).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from PIL import Image
from torch import Tensor, nn

from clipgen.train.data import Images, Renders, held_back, to_float
from clipgen.train.merged_vae import MergedVae
from clipgen.world.contact_sheet import contact_sheet

WIDTH = 48
LATENT_CHANNELS = 16
FOLD = 16  # pixels along the side of a latent position
CROP = 128
HELD_BACK = 64  # the last images of the renders are never trained on
ON_THINGS = 0.8  # share of the crops that are centred on a random point of a thing
NOISE = (0.0, 0.1)  # standard deviations of the noise added to latents in training, drawn per image
WHOLE_EVERY = 8  # steps between two batches of whole images
SIZE_WEIGHT = 1e-3
EDGE_WEIGHT = 1.0
EQUIVARIANCE_WEIGHT = 0.25
EQUIVARIANCE_FROM = 600


def build_vae() -> AutoencoderTiny:
    """Builds the untrained autoencoder: [B, 3, 16h, 16w] in [-1, 1] <-> latents [B, 16, h, w]."""
    vae = AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 5,
        decoder_block_out_channels=(WIDTH,) * 5,
        num_encoder_blocks=(0, 0, 1, 3, 5),
        num_decoder_blocks=(6, 5, 2, 1, 0),
        latent_channels=LATENT_CHANNELS,
    )
    for stack in (vae.encoder.layers, vae.decoder.layers):
        _keep_variance(stack)
    return vae


def _keep_variance(stack: nn.Sequential) -> None:
    """Initialises the convolutions outside residual blocks so that the variance stays the same (He et al. 2015).

    PyTorch's default shrinks it at each of them: latents begin at a deviation of 0.06, below the noise added to them,
    and nothing is learnt for the first thousand steps.
    """
    convolutions = [layer for layer in stack if isinstance(layer, nn.Conv2d)]
    for layer in convolutions[:-1]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.kaiming_normal_(convolutions[-1].weight, nonlinearity="linear")


class VaePart:
    """Trains on random crops of images; every WHOLE_EVERY-th batch holds whole images instead."""

    def __init__(self, vae: AutoencoderTiny, renders: Images, batch: int, seed: int = 0) -> None:
        self.model, self.renders, self.batch = MergedVae(vae), renders, batch
        self.rng = np.random.default_rng(seed)
        self.trained_on = len(renders) - held_back(renders, HELD_BACK)

    def to(self, device: torch.device) -> None:
        """Moves the autoencoder to a device."""
        self.model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss on one batch."""
        images = self._batch(whole=(step + 1) % WHOLE_EVERY == 0)
        images = images.to(self.model.device, memory_format=torch.channels_last)
        clean = self.model.encode(images)
        deviation = torch.empty(len(clean), 1, 1, 1, device=clean.device).uniform_(*NOISE)
        latents = clean + deviation * torch.randn_like(clean)
        decoded = self.model.decode(latents).float()
        l1 = (decoded - images).abs().mean()
        loss = l1 + _pyramid(decoded, images) + EDGE_WEIGHT * _edges(decoded, images)
        loss = loss + SIZE_WEIGHT * (clean.float().square().mean() - 1).square()
        if step % 4 == 0 and step > EQUIVARIANCE_FROM:
            halved = self.model.decode(F.avg_pool2d(latents, 2)).float()
            loss = loss + EQUIVARIANCE_WEIGHT * (halved - F.avg_pool2d(images, 2)).abs().mean()
        return loss, {"l1": l1.item()}

    def _batch(self, *, whole: bool) -> Tensor:
        if whole:
            return self.renders.images(self.rng.integers(0, self.trained_on, max(1, self.batch // 4)))
        crops = []
        for index in self.rng.integers(0, self.trained_on, self.batch):
            x, y = self._corner(int(index))
            crops.append(self.renders.pixels[index, y : y + CROP, x : x + CROP])
        return to_float(torch.from_numpy(np.stack(crops)))

    def _corner(self, index: int) -> tuple[int, int]:
        """Returns the upper left corner (x, y) of a random crop of an image, in pixels."""
        size = self.renders.pixels.shape[1]
        if not isinstance(self.renders, Renders) or self.rng.random() >= ON_THINGS:
            x, y = self.rng.integers(0, size - CROP + 1, 2)
            return int(x), int(y)
        boxes = [box for thing in self.renders.scene(index).things for box in thing.boxes]
        middle, foot, height = boxes[self.rng.integers(len(boxes))]
        dx, dy = self.rng.random(2)
        centre = np.array([middle + (dx - 0.5) * height, foot - dy * height]) * size
        x, y = np.clip(centre - CROP / 2, 0, size - CROP).astype(int)
        return int(x), int(y)

    def evaluate(self, folder: Path) -> dict[str, float]:
        """Writes images above their reconstructions; measures PSNR in dB on the images held back."""
        images = self.renders.images(np.arange(self.trained_on, len(self.renders))).to(self.model.device)
        decoded = torch.cat([self.model.decode(self.model.encode(p)).clamp(-1, 1) for p in images.split(8)])
        mse = ((decoded - images) / 2).square().mean((1, 2, 3))
        rows = [x for k in range(0, 32, 8) for x in (*images[k : k + 8], *decoded[k : k + 8])]
        contact_sheet([to_image(x) for x in rows]).save(folder / "vae.png")
        return {"psnr": float((-10 * mse.log10()).mean())}


def to_image(pixels: Tensor) -> Image.Image:
    """Converts [3, H, W] in [-1, 1] to a PIL image."""
    return Image.fromarray(((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy())


def _pyramid(a: Tensor, b: Tensor) -> Tensor:
    """L1 at half and quarter size."""
    return sum(((F.avg_pool2d(a, k) - F.avg_pool2d(b, k)).abs().mean() for k in (2, 4)), torch.zeros(()))


def _edges(a: Tensor, b: Tensor) -> Tensor:
    """L1 of horizontal and vertical differences."""
    dx = (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean()
    return dx + (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean()


def latent_scale(vae: AutoencoderTiny, renders: Images, count: int = 256) -> float:
    """Returns the scaling factor: 1 / standard deviation of the latents of the first `count` images."""
    images = renders.images(np.arange(min(count, len(renders))))
    with torch.no_grad():
        latents = torch.cat([vae.encode(part).latents for part in images.split(8)])
    return 1.0 / float(latents.std())
