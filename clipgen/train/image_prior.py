"""storybook's image prior: from CLIP's vector of a picture to the prompt that draws another one like it.

It learns to say the plain caption of a render: all there is, in the shortest words. That takes a CLIP and a tokenizer;
denoiser and autoencoder only draw the sample sheet.
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
from transformers import CLIPModel, CLIPTokenizer

from clipgen.clip.image_prior import ImagePrior
from clipgen.train.clip import Anchored
from clipgen.train.data import Pictures, Renders, held_back
from clipgen.train.loop import Budget
from clipgen.train.processes import bf16_is_fast
from clipgen.train.vae import to_image
from clipgen.train.world.concepts import concepts
from clipgen.train.world.grammar import plain_caption
from clipgen.train.world.sheet import contact_sheet

BUDGET = Budget(1, 128, 2e-3, warmup=100, decay=0.5, average=0.99, weight_decay=0.02)
HELD_BACK = 512  # pictures that are measured and never trained on
SEEN = 60_000  # pictures that are looked at, once: with 24,000 the held-back loss rises after 1,000 steps (LOG.md)
AT_ONCE = 64
BLUR = 0.2  # length of the noise on a vector: what is drawn looks a little different from what is rendered
SHOWN, EACH = 4, 3  # pictures of the sample sheet, and variations of each
Draw = Callable[[Tensor], Tensor]  # token ids [B, T] -> pictures [B, 3, H, W] in [-1, 1]


def build_image_prior(clip: CLIPModel, tokenizer: CLIPTokenizer) -> ImagePrior:
    """Builds the untrained prior from a CLIP's vectors to prompts of a tokenizer."""
    features: int = clip.config.projection_dim
    prior: ImagePrior = ImagePrior(features, tokenizer.model_max_length, len(tokenizer))
    return prior


class ImagePriorPart:
    """Trains on CLIP's vectors of pictures, looked at once and kept in `folder`, towards their plain captions."""

    def __init__(
        self, model: ImagePrior, clip: CLIPModel, tokenizer: CLIPTokenizer, data: Pictures, batch: int, folder: Path,
        draw: Draw | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.data, self.tokenizer, self.draw = model, data, tokenizer, draw
        self.indices = np.linspace(0, len(data) - 1, min(SEEN, len(data))).astype(np.int64)
        self.vectors = kept_vectors(clip, data, self.indices, folder / "vectors.safetensors")
        said = tokenizer(self._captions(), padding="max_length", truncation=True, return_tensors="pt")
        self.ids: Tensor = said.input_ids
        model.allow(self.ids, tokenizer.eos_token_id)
        self.marks = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        ends = (self.ids == tokenizer.eos_token_id).long().argmax(dim=1)
        places = torch.arange(self.ids.shape[1])
        self.said = (places > 0) & (places <= ends[:, None])  # each caption's own tokens and its end
        self.known = len(self.indices) - held_back(data, HELD_BACK)
        self.batch = min(batch, self.known)
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
        """Returns the mean cross entropy of the captions' tokens."""
        chosen = torch.from_numpy(self.numbers.integers(0, self.known, self.batch))
        vectors = self.vectors[chosen]
        noise = torch.randn_like(vectors) * (BLUR / vectors.shape[-1] ** 0.5)
        return self._error(F.normalize(vectors + noise, dim=-1), chosen), {}

    def _error(self, vectors: Tensor, chosen: Tensor) -> Tensor:
        device, said = self.model.device, self.said[chosen]
        logits = self.model.words(self.model.places(vectors.to(device))[said.to(device)])  # [tokens said, V]
        return F.cross_entropy(logits.float(), self.ids[chosen][said].to(device))

    def show(self, folder: Path) -> dict[str, float]:
        """Draws variations; measures on pictures held back the error, right tokens, right things and right captions."""
        chosen = torch.arange(self.known, len(self.indices))
        ids = self.model.ids(self.vectors[chosen].to(self.model.device), *self.marks).cpu()
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        right = ids == self.ids[chosen]
        if self.draw is not None:
            self._sheet(self.draw, ids[:SHOWN], texts[:SHOWN], folder)
        return {
            "val_loss": self._error(self.vectors[chosen], chosen).item(),
            "val_tokens": right[self.said[chosen]].float().mean().item(),
            "val_captions": right.all(dim=1).float().mean().item(),
            **self._named(chosen, texts),
        }

    def _named(self, chosen: Tensor, texts: list[str]) -> dict[str, float]:
        """Returns the share of the things in renders that are named."""
        if not isinstance(self.data, Renders):
            return {}
        scenes = [self.data.scene(int(self.indices[i])) for i in chosen.tolist()]
        named = [
            any(name in text for name in (thing.concept, concepts()[thing.concept].plural))
            for scene, text in zip(scenes, texts, strict=True)
            for thing in scene.things
        ]
        return {"val_named": float(np.mean(named))}

    def _sheet(self, draw: Draw, ids: Tensor, labels: list[str], folder: Path) -> None:
        """Writes a sheet: each picture, then variations of it with the prompt that they were drawn from."""
        pictures = self.data.images(self.indices[self.known : self.known + len(ids)])
        drawn = draw(ids.repeat_interleave(EACH, dim=0)).cpu().unflatten(0, (-1, EACH))
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
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_fast()):
        vectors = torch.cat([eye.images(data.images(part).to(device)).cpu() for part in parts])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": vectors}, path)
    return vectors
