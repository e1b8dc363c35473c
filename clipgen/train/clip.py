"""storybook's CLIPs: two encoders trained contrastively, with hard negatives in every batch and labels as anchors.

Each picture meets, beside the captions of the others, a caption of its own scene with one thing changed (another
concept, colour, count, place, style, or the two things swapped), which teaches word order and attributes that
captions of other scenes never test (Yuksekgonul et al. 2023), or the picture of that other scene too.

The anchors are one direction a label of the world, shared by pictures and texts: each must point along the directions
of what it shows. Contrast alone learns the colour of the ground first and puts things of one colour at one place for
a long time (LOG.md). Of a vector there is a view a role (what is left, what is behind), in which the anchor of what
stands there must outdo that of what stands opposite: sides are not learnt by contrast alone either. Each patch must
tell what it shows (patches.py). All that tells labels is left behind when training ends. Beside them a batch names its
pictures of one thing by bare names: captions that tell all leave `a fox` alone at another place than pictures of foxes.

The guide learns to write beside it (CoCa, Yu et al. 2022): what stands where, in which number and colour, has to be in
its patches for that, whence its vector has it too.

The guide is a CLIPModel with InfoNCE (Radford et al. 2021), the judge a SiglipModel with the pairwise sigmoid loss
(Zhai et al. 2023): other towers, another objective, other data. It never guides; it tells whether guidance helped.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, CLIPModel, CLIPTokenizer, SiglipModel

from clipgen.captioning.coca import Coca
from clipgen.models.load_captioner import HEAD_FOLDERS
from clipgen.train.captioner import writing_loss
from clipgen.train.data import Renders, held_back
from clipgen.train.gathered import gathered
from clipgen.train.hard_batches import HardBatches, Row
from clipgen.train.labels import HASTE, ROLES, Side, label_index, labels_of, labels_told, sides_of, sides_told
from clipgen.train.negatives import hard_pair
from clipgen.train.patches import PatchLabels
from clipgen.world.grammar import indefinite, plain_caption
from clipgen.world.scene import Scene

HELD_BACK, MEASURED = 2048, 512  # pictures never trained on, the last ones of the renders, and of those the measured
WEIGHTS = {  # of the terms of the loss; of the contrast's has writing what CoCa gives it
    "contrast": 1.0, "anchoring": 0.1, "naming": 0.5, "placing": 0.5, "patches": 0.5, "writing": 2.0,
}  # fmt: skip
COCA = HEAD_FOLDERS["coca"]  # of what writes, beside the folder of its CLIP
NAMES = 48  # bare names a batch: what a label says when it says no more
RARE = -4.0  # where the logits of labels begin: few are true of a picture


class Anchored(nn.Module):
    """A CLIP or SigLIP, what writes from its patches, and the directions of the labels, which are not saved."""

    def __init__(self, clip: CLIPModel | SiglipModel, writer: Coca | None = None) -> None:
        super().__init__()
        self.clip, self.writer = clip, writer
        self.kind: str = clip.config.model_type
        width = clip.config.projection_dim if self.kind == "clip" else clip.config.vision_config.hidden_size
        self.anchors = nn.Linear(width, len(label_index()))
        self.views = nn.Linear(width, len(ROLES) * width, bias=False)
        self.patches = PatchLabels(clip.config.vision_config.hidden_size)
        nn.init.normal_(self.anchors.weight, std=1 / HASTE)
        nn.init.constant_(self.anchors.bias, RARE / HASTE)
        with torch.no_grad():
            self.views.weight.copy_(_halves(width) / HASTE)

    def images(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the unit vectors [B, D] and the patch states [B, N, S] of pictures in [-1, 1]."""
        seen = self.clip.get_image_features(pictures)
        return F.normalize(seen.pooler_output.float(), dim=-1), seen.last_hidden_state

    def texts(self, ids: Tensor) -> Tensor:
        """Returns the unit vectors [B, D] of token ids [B, T]."""
        return F.normalize(self.clip.get_text_features(ids).pooler_output.float(), dim=-1)

    def contrast(self, logits: Tensor) -> Tensor:
        """Returns the loss of logits [B, 2B]: a picture's own text stands in its row's place, false texts after B."""
        count = len(logits)
        own = torch.arange(count, device=logits.device)
        if self.kind == "clip":
            return (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, :count].T, own)) / 2
        signs = 2 * F.one_hot(own, 2 * count) - 1
        return -F.logsigmoid(signs * (logits + self.clip.logit_bias)).sum() / count

    def anchoring(self, features: Tensor, labels: Tensor) -> Tensor:
        """Returns how badly features [B, D] tell the first labels [B, L]."""
        told = HASTE * self.anchors(features)[:, : labels.shape[1]]
        return F.binary_cross_entropy_with_logits(told, labels, reduction="sum") / len(labels)

    def placing(self, features: Tensor, sides: Sequence[Sequence[Side]]) -> tuple[Tensor, float]:
        """Returns how badly features [B, D] tell which of two things has which side, and how often they do."""
        found = [(row, *side) for row, each in enumerate(sides) for side in each]
        if not found:
            return features.new_zeros(()), 0.5
        rows, roles, there, opposite = torch.tensor(found, device=features.device).T
        views = HASTE * self.views(features).unflatten(1, (len(ROLES), -1))[rows, roles]
        margin = HASTE * (views * (self.anchors.weight[there] - self.anchors.weight[opposite])).sum(dim=1)
        return F.softplus(-margin).mean(), (margin > 0).float().mean().item()

    def save_pretrained(self, folder: Path) -> None:
        """Writes the encoders, as transformers has them, and what writes beside them."""
        self.clip.save_pretrained(folder)
        if self.writer:
            self.writer.save_pretrained(folder.parent / COCA)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Anchored:
        """Reads encoders, and what writes beside a CLIP; the anchors begin anew."""
        clip, beside = AutoModel.from_pretrained(folder), folder.parent / COCA
        writes = clip.config.model_type == "clip" and beside.exists()
        return cls(clip, Coca.from_pretrained(beside) if writes else None)


def _halves(width: int) -> Tensor:
    """Returns the views [R D, D] to begin with: of each two opposite roles, one looks at one half of the numbers.

    Were both to look at all of them, then whatever says more of what is left would say as much more of what is right,
    and neither would ever be learnt.
    """
    halves = torch.rand(len(ROLES) // 2, width, generator=torch.Generator().manual_seed(0)) < 0.5
    return torch.cat([2.0 * half.float().diag() for one in halves for half in (one, ~one)])


class ClipPart:
    """Trains on pictures, their captions and one hard negative caption each; the more things, the oftener."""

    def __init__(
        self, clip: CLIPModel | SiglipModel, tokenizer: CLIPTokenizer, renders: Renders, batch: int, seed: int = 0,
        writer: Coca | None = None,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.renders, self.batch = Anchored(clip, writer), tokenizer, renders, batch
        self.known = len(renders) - held_back(renders, HELD_BACK)
        self.batches, self.words = HardBatches(renders, self.known, seed), random.Random(seed)
        self.names = self.batches.names

    def to(self, device: torch.device) -> None:
        """Moves both encoders to a device; on CPUs attention is two plain products, whose gradient is far cheaper."""
        self.model.to(device)
        if device.type == "cpu":
            self.model.clip.set_attn_implementation("eager")
            if self.model.writer:
                self.model.writer.decoder.set_attn_implementation("eager")

    @property
    def device(self) -> torch.device:
        """Where the encoders are."""
        return self.model.anchors.weight.device

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of one batch, the contrastive part that of all processes together, and its terms."""
        rows = self.batches.draw(self.batch)
        scenes = [row.scene for row in rows]
        pixels = torch.stack([row.picture for row in rows]).to(self.device)
        images, states = self.model.images(degraded(resized(pixels, self.model.clip)))
        true, false, spare = self._words(rows)
        scale = self.model.clip.logit_scale.exp().clamp(max=100)
        logits = scale * gathered(images) @ torch.cat([gathered(true), gathered(false)]).T  # all processes' rows
        spare = gathered(spare)
        logits = logits.masked_fill(torch.cat([torch.zeros_like(spare), spare])[None], -1e4)
        seen, seen_right = self.model.placing(images, [sides_of(scene) for scene in scenes])
        told, told_right = self.model.placing(true, [sides_told(row.true) for row in rows])
        patches, patches_right = self.model.patches(states, scenes)
        terms = {
            "contrast": self.model.contrast(logits), "anchoring": self._anchoring(images, true, scenes),
            "naming": self._naming(images, scenes, scale), "placing": seen + told, "patches": patches,
        }  # fmt: skip
        if self.model.writer:
            terms["writing"] = self._writing(self.model.writer, states, scenes)
        right = (logits.argmax(1) == torch.arange(len(logits), device=self.device)).float().mean()
        figures = {"r@1": right.item(), "scale": scale.item(), "sides_seen": seen_right, "sides_told": told_right}
        figures |= {"patches_right": patches_right, **{name: term.item() for name, term in terms.items()}}
        return torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum(), figures

    def _words(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the vectors [B, D] of the true captions and of the false ones, and which rows [B] have no false."""
        falses = {k: row.false for k, row in enumerate(rows) if row.false}
        words = self.model.texts(self._ids([*(row.true for row in rows), *falses.values()]))
        true, false = words[: len(rows)], torch.zeros_like(words[: len(rows)])
        false[list(falses)] = words[len(rows) :]
        return true, false, torch.tensor([row.false is None for row in rows], device=self.device)

    def _anchoring(self, images: Tensor, words: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Returns how badly vectors [B, D] of pictures and of their captions tell what there is."""
        labels = torch.stack([labels_of(scene) for scene in scenes]).to(self.device)
        return self.model.anchoring(images, labels) + self.model.anchoring(words, labels[:, : labels_told()])

    def _writing(self, writer: Coca, states: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Returns how badly the plain captions of scenes are foretold from patch states [B, N, S]."""
        return writing_loss(writer, states, [plain_caption(scene) for scene in scenes], self.tokenizer)

    def _naming(self, images: Tensor, scenes: Sequence[Scene], scale: Tensor) -> Tensor:
        """Returns how badly bare names, those of the batch and some others, are told apart on pictures of one thing."""
        shown = {k: scene.things[0].concept for k, scene in enumerate(scenes) if len(scene.things) == 1}
        if not shown:
            return images.new_zeros(())
        names = list(dict.fromkeys(shown.values()))
        others = [name for name in self.names if name not in names]
        names += self.words.sample(others, min(len(others), max(0, NAMES - len(names))))
        words = self.model.texts(self._ids([indefinite(name) for name in names]))
        wanted = torch.tensor([names.index(name) for name in shown.values()], device=self.device)
        return F.cross_entropy(scale * images[list(shown)] @ words.T, wanted)

    def show(self, folder: Path) -> dict[str, float]:
        """Measures retrieval, hard negatives and zero-shot naming on the pictures held back."""
        rng, indices = random.Random(0), np.arange(self.known, len(self.renders))[-MEASURED:]
        scenes = [self.renders.scene(int(i)) for i in indices]
        images, states = self.model.images(resized(self.renders.images(indices).to(self.device), self.model.clip))
        pairs = [hard_pair(scene, rng, self.names) for scene in scenes]
        true = self.model.texts(self._ids([pair[0] for pair in pairs]))
        found = ((images @ true.T).argmax(1) == torch.arange(len(scenes), device=self.device)).float().mean()
        single = [i for i, scene in enumerate(scenes) if len(scene.things) == 1]
        named = (images[single] @ self.model.texts(self._ids([indefinite(name) for name in self.names])).T).argmax(1)
        right = np.mean(
            [self.names[k] == scenes[i].things[0].concept for i, k in zip(single, named.tolist(), strict=True)]
        )
        figures = {"val_r@1": float(found), "val_top1": float(right)}
        figures["val_patches"] = self.model.patches(states, scenes)[1]
        for kind in ("hard", "swap", "count"):
            told = self._told(images, scenes, () if kind == "hard" else (kind,))
            figures |= {f"val_{kind}": float(told.float().mean())} if len(told) else {}
        return figures | (self._written(self.model.writer, states, scenes, folder) if self.model.writer else {})

    def _told(self, images: Tensor, scenes: Sequence[Scene], kinds: Sequence[str]) -> Tensor:
        """Returns whether vectors of pictures, where an edit can be told, are closer to the true than to the false."""
        rng = random.Random(0)
        pairs = [hard_pair(scene, rng, self.names, kinds) for scene in scenes]
        texts = {k: (true, other[1]) for k, (true, other) in enumerate(pairs) if other}
        if not texts:
            return torch.zeros(0)
        true, false = (self.model.texts(self._ids(list(column))) for column in zip(*texts.values(), strict=True))
        images = images[list(texts)]
        return (images * true).sum(-1) > (images * false).sum(-1)

    def _written(self, writer: Coca, states: Tensor, scenes: Sequence[Scene], folder: Path) -> dict[str, float]:
        """Writes captions of scenes into a folder; returns how many are wholly right, and the loss."""
        pairs = list(zip(map(plain_caption, scenes), writer.caption(states, self.tokenizer), strict=True))
        (folder / "captions.txt").write_text("".join(f"{true}\n    {own}\n" for true, own in pairs), "utf-8")
        whole = float(np.mean([true == own for true, own in pairs]))
        return {"val_writing": self._writing(writer, states, scenes).item(), "val_whole": whole}

    def _ids(self, texts: list[str]) -> Tensor:
        """Returns input_ids [B, T]: padded to the longest for CLIP, which reads forwards only, else to the limit."""
        padding = "longest" if self.model.kind == "clip" else "max_length"
        found = self.tokenizer(texts, padding=padding, truncation=True, return_tensors="pt")
        ids: Tensor = found["input_ids"].to(self.device)
        return ids


def resized(images: Tensor, clip: CLIPModel | SiglipModel) -> Tensor:
    """Returns images [B, 3, H, W] at the size of an image encoder, averaging over the pixels that fall together."""
    return F.interpolate(images, size=clip.config.vision_config.image_size, mode="area")


def degraded(pictures: Tensor) -> Tensor:
    """Blurs a quarter of pictures [B, 3, H, W] and puts noise on another: what is half drawn must be named too."""
    quarter = len(pictures) // 4
    soft, rough, rest = pictures.split([quarter, quarter, len(pictures) - 2 * quarter])
    soft = F.interpolate(F.avg_pool2d(soft, 2), scale_factor=2.0, mode="bilinear")
    return torch.cat([soft, rough + 0.1 * torch.randn_like(rough), rest])
