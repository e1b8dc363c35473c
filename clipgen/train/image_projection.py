"""storybook's image projection: from CLIP's vector of a picture to the text states that draw another one like it.

It learns to give what the denoiser's text encoder gives for the plain caption of a render: all there is, in the
shortest words. UNet and autoencoder only draw the sample sheet.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from clipgen.clip.image_projection import ImageProjection
from clipgen.train.clip import Anchored
from clipgen.train.data import Pictures, Renders, held_back
from clipgen.train.loop import Budget
from clipgen.train.vae import to_image
from clipgen.train.world.grammar import plain_caption
from clipgen.train.world.sheet import contact_sheet

BUDGET = Budget(1, 64, 1e-3, warmup=200, decay=0.4, average=0.995, weight_decay=0.01)
HELD_BACK = 512  # pictures that are measured and never trained on
SEEN = 24_000  # pictures that are looked at, once
AT_ONCE = 64
BLUR = 0.2  # length of the noise on a vector: what is drawn looks a little different from what is rendered
SHOWN, EACH = 8, 3  # pictures of the sample sheet, and variations of each
Draw = Callable[[Tensor], Tensor]  # text states [B, T, W] -> pictures [B, 3, H, W] in [-1, 1]


def build_image_projection(clip: CLIPModel, text_encoder: CLIPTextModel) -> ImageProjection:
    """Builds the untrained projection from a CLIP's vectors to the states of a text encoder."""
    text = text_encoder.config
    features: int = clip.config.projection_dim
    projection: ImageProjection = ImageProjection(features, text.max_position_embeddings, text.hidden_size)
    return projection


class ImageProjectionPart:
    """Trains on CLIP's vectors of pictures, looked at once and kept in `folder`, towards their captions' states."""

    def __init__(
        self, model: ImageProjection, clip: CLIPModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer,
        data: Pictures, batch: int, folder: Path, draw: Draw | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.data, self.batch, self.draw = model, data, batch, draw
        self.indices = np.linspace(0, len(data) - 1, min(SEEN, len(data))).astype(np.int64)
        self.vectors = kept_vectors(clip, data, self.indices, folder / "vectors.safetensors")
        self.texts, self.places, self.states = states_of(self._captions(), text_encoder, tokenizer)
        self.spread = self.states.float().var(dim=0).mean()
        self.known = len(self.indices) - held_back(data, HELD_BACK)
        self.numbers = np.random.default_rng(seed)

    def _captions(self) -> list[str]:
        """Returns the one caption that each picture is learnt by."""
        if isinstance(self.data, Renders):
            return [plain_caption(self.data.scene(int(i))) for i in self.indices]
        words = random.Random(0)
        return [self.data.caption(int(i), words) for i in self.indices]

    def to(self, device: torch.device) -> None:
        """Moves the projection to a device."""
        self.model.to(device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the mean squared error of the states, in units of their spread: 1 knows nothing of the picture."""
        chosen = torch.from_numpy(self.numbers.integers(0, self.known, self.batch))
        vectors = self.vectors[chosen]
        noise = torch.randn_like(vectors) * (BLUR / vectors.shape[-1] ** 0.5)
        return self._error(F.normalize(vectors + noise, dim=-1), chosen), {}

    def _error(self, vectors: Tensor, chosen: Tensor) -> Tensor:
        device = self.model.device
        wanted = self.states[self.places[chosen]].to(device).float()
        return F.mse_loss(self.model(vectors.to(device)).float(), wanted) / self.spread.to(device)

    def show(self, folder: Path) -> dict[str, float]:
        """Draws variations; measures on pictures held back the error, and how often the right text is the nearest."""
        chosen = torch.arange(self.known, len(self.indices))
        told = torch.cat([self.model(part.to(self.model.device)) for part in self.vectors[chosen].split(AT_ONCE)])
        texts, own = self.places[chosen].unique(return_inverse=True)
        apart = torch.cdist(told.float().flatten(1).cpu(), self.states[texts].float().flatten(1))
        nearest = apart.argmin(dim=1)
        if self.draw is not None:
            self._sheet(self.draw, told[:SHOWN], [self.texts[int(i)] for i in texts[nearest[:SHOWN]]], folder)
        error = self._error(self.vectors[chosen], chosen).item()
        return {"val_error": error, "val_nearest": (nearest == own).float().mean().item()}

    def _sheet(self, draw: Draw, told: Tensor, labels: list[str], folder: Path) -> None:
        """Writes a sheet: each picture, then variations of it under the text that its states are nearest to."""
        pictures = self.data.images(self.indices[self.known : self.known + len(told)])
        drawn = draw(told.repeat_interleave(EACH, dim=0)).cpu().unflatten(0, (-1, EACH))
        rows = [to_image(each) for own, those in zip(pictures, drawn, strict=True) for each in (own, *those)]
        names = [name for label in labels for name in ("the picture", *(label for _ in range(EACH)))]
        contact_sheet(rows, names).save(folder / "variations.png")


@torch.no_grad()
def kept_vectors(clip: CLIPModel, data: Pictures, indices: npt.NDArray[np.int64], path: Path) -> Tensor:
    """Returns CLIP's unit vectors [N, D] of some pictures, from a file that is written the first time."""
    if path.is_file():
        return load_file(path)["vectors"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    eye = Anchored(clip).eval().to(device)
    parts = np.array_split(indices, -(-len(indices) // AT_ONCE))
    vectors = torch.cat([eye.images(data.images(part).to(device)).cpu() for part in parts])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": vectors}, path)
    return vectors


@torch.no_grad()
def states_of(
    captions: list[str], text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> tuple[list[str], Tensor, Tensor]:
    """Returns the different texts, which of them each caption is [N], and their states [T, tokens, W] in float16."""
    texts = list(dict.fromkeys(captions))
    places = {text: place for place, text in enumerate(texts)}
    states = []
    for first in range(0, len(texts), AT_ONCE):
        part = texts[first : first + AT_ONCE]
        ids = tokenizer(part, padding="max_length", truncation=True, return_tensors="pt").input_ids
        states.append(text_encoder(ids).last_hidden_state.half())
    return texts, torch.tensor([places[caption] for caption in captions]), torch.cat(states)
