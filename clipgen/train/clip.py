"""Training of storybook's CLIP and of its judge, with hard negatives and exact labels of the rendered scenes.

The guide is a CLIPModel with InfoNCE (Radford et al. 2021, arXiv 2103.00020). The judge is a SiglipModel with the
pairwise sigmoid loss (Zhai et al. 2023, arXiv 2303.15343): another architecture, objective and data. It never guides;
it measures whether guidance helped.

Losses in addition to the contrastive one:

- Each image meets a false caption of its own scene, with one thing changed (concept, colour, count, place, style, or
  two things swapped), or the image of that other scene (hard_batches.py). Captions of other scenes never test word
  order and attributes (Yuksekgonul et al. 2023, arXiv 2210.01936).
- labels: a linear head predicts from a feature vector which concepts, colours, counts, places and styles there are.
  Contrast alone learns background colours first and maps all things of one colour to one place for a long time.
- roles: a linear view of the feature vector per role (left, right, above ...), in which the label of the thing with
  that role must score higher than the label of the opposite thing. Contrast alone does not learn left and right.
- patches: each patch names what it shows (patches.py).
- names: images of one thing are matched to bare names ("a fox"), which full captions never are.
- captions: CoCa writes the caption from the patch states (Yu et al. 2022, arXiv 2205.01917), for the guide only.

The heads are dropped after training; CoCa is saved in a folder next to the CLIP.
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
from clipgen.train.captioner import caption_loss
from clipgen.train.data import Renders, held_back
from clipgen.train.gathered import gathered
from clipgen.train.hard_batches import HardBatches, Row
from clipgen.train.labels import (
    HEAD_SPEED,
    ROLES,
    RoleLabel,
    caption_label_count,
    caption_roles,
    label_index,
    scene_labels,
    scene_roles,
)
from clipgen.train.negatives import hard_pair
from clipgen.train.patches import PatchLabels
from clipgen.world.grammar import indefinite, plain_caption
from clipgen.world.scene import Scene

HELD_BACK, MEASURED = 2048, 512  # images never trained on, the last of the renders, and how many of them are measured
WEIGHTS = {"contrast": 1.0, "labels": 0.1, "names": 0.5, "roles": 0.5, "patches": 0.5, "captions": 2.0}
COCA = HEAD_FOLDERS["coca"]  # folder of the captioner, next to that of its CLIP
BARE_NAMES = 48  # per batch
RARE_LOGIT = -4.0  # initial logit of a label: most labels are false for a given image


class ClipWithHeads(nn.Module):
    """A CLIP or SigLIP with the heads of the auxiliary losses, and a captioner for a CLIP."""

    def __init__(self, clip: CLIPModel | SiglipModel, captioner: Coca | None = None) -> None:
        super().__init__()
        self.clip, self.captioner = clip, captioner
        self.kind: str = clip.config.model_type
        width = clip.config.projection_dim if self.kind == "clip" else clip.config.vision_config.hidden_size
        self.labels = nn.Linear(width, len(label_index()))
        self.role_views = nn.Linear(width, len(ROLES) * width, bias=False)
        self.patches = PatchLabels(clip.config.vision_config.hidden_size)
        nn.init.normal_(self.labels.weight, std=1 / HEAD_SPEED)
        nn.init.constant_(self.labels.bias, RARE_LOGIT / HEAD_SPEED)
        with torch.no_grad():
            self.role_views.weight.copy_(_disjoint_views(width) / HEAD_SPEED)

    def images(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the unit features [B, D] and the patch states [B, N, S] of images [B, 3, H, W] in [-1, 1].

        Images of another size than the encoder's are resized by averaging.
        """
        size = self.clip.config.vision_config.image_size
        output = self.clip.get_image_features(F.interpolate(pixel_values, size=size, mode="area"))
        return F.normalize(output.pooler_output.float(), dim=-1), output.last_hidden_state

    def texts(self, input_ids: Tensor) -> Tensor:
        """Returns the unit features [B, D] of token ids [B, T]."""
        return F.normalize(self.clip.get_text_features(input_ids).pooler_output.float(), dim=-1)

    def contrastive_loss(self, logits: Tensor) -> Tensor:
        """Returns the loss of logits [B, 2B]: column b is the caption of image b, the false captions follow."""
        count = len(logits)
        target = torch.arange(count, device=logits.device)
        if self.kind == "clip":
            return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :count].T, target)) / 2
        signs = 2 * F.one_hot(target, 2 * count) - 1
        return -F.logsigmoid(signs * (logits + self.clip.logit_bias)).sum() / count

    def label_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Returns the binary cross entropy of the first L labels [B, L], predicted from features [B, D]."""
        logits = HEAD_SPEED * self.labels(features)[:, : labels.shape[1]]
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(labels)

    def role_loss(self, features: Tensor, roles: Sequence[Sequence[RoleLabel]]) -> tuple[Tensor, float]:
        """Returns the pairwise loss of roles, per row, predicted from features [B, D], and the share of right ones."""
        rows_and_roles = [(row, *role) for row, each in enumerate(roles) for role in each]
        if not rows_and_roles:
            return features.new_zeros(()), 0.5
        rows, role, thing, opposite = torch.tensor(rows_and_roles, device=features.device).T
        views = HEAD_SPEED * self.role_views(features).unflatten(1, (len(ROLES), -1))[rows, role]
        margin = HEAD_SPEED * (views * (self.labels.weight[thing] - self.labels.weight[opposite])).sum(dim=1)
        return F.softplus(-margin).mean(), (margin > 0).float().mean().item()

    def save_pretrained(self, folder: Path) -> None:
        """Writes the CLIP as transformers has it, and its captioner into a folder next to it."""
        self.clip.save_pretrained(folder)
        if self.captioner:
            self.captioner.save_pretrained(folder.parent / COCA)

    @classmethod
    def from_pretrained(cls, folder: Path) -> ClipWithHeads:
        """Reads a CLIP, and the captioner next to it if there is one; the heads are new."""
        clip, coca = AutoModel.from_pretrained(folder), folder.parent / COCA
        has_captioner = clip.config.model_type == "clip" and coca.exists()
        return cls(clip, Coca.from_pretrained(coca) if has_captioner else None)


def _disjoint_views(width: int) -> Tensor:
    """Returns initial role views [R D, D] in which opposite roles read disjoint halves of the features.

    If both read all of them, what raises the score of the left thing raises that of the right thing as much, and
    neither role is ever learnt.
    """
    halves = torch.rand(len(ROLES) // 2, width, generator=torch.Generator().manual_seed(0)) < 0.5
    return torch.cat([2.0 * half.float().diag() for pair in halves for half in (pair, ~pair)])


class ClipPart:
    """Trains on images, their captions and one false caption each (hard_batches.py)."""

    def __init__(
        self, clip: CLIPModel | SiglipModel, tokenizer: CLIPTokenizer, renders: Renders, batch: int, seed: int = 0,
        captioner: Coca | None = None,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.renders, self.batch = ClipWithHeads(clip, captioner), tokenizer, renders, batch
        self.trained_on = len(renders) - held_back(renders, HELD_BACK)
        self.batches, self.words = HardBatches(renders, self.trained_on, seed), random.Random(seed)
        self.names = self.batches.names

    def to(self, device: torch.device) -> None:
        """Moves all networks to a device; on CPUs eager attention has the far cheaper gradient."""
        self.model.to(device)
        if device.type == "cpu":
            self.model.clip.set_attn_implementation("eager")
            if self.model.captioner:
                self.model.captioner.decoder.set_attn_implementation("eager")

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.model.labels.weight.device

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Returns the weighted sum of the losses on one batch; the contrastive one spans all processes."""
        rows = self.batches.draw(self.batch)
        scenes = [row.scene for row in rows]
        images, states = self.model.images(degraded(torch.stack([row.image for row in rows]).to(self.device)))
        true, false, missing = self._captions(rows)
        scale = self.model.clip.logit_scale.exp().clamp(max=100)
        # [B, 2B]: images of all processes against all true captions, then all false ones
        logits = scale * gathered(images) @ torch.cat([gathered(true), gathered(false)]).T
        missing = gathered(missing)
        logits = logits.masked_fill(torch.cat([torch.zeros_like(missing), missing])[None], -1e4)
        image_roles, image_roles_right = self.model.role_loss(images, [scene_roles(scene) for scene in scenes])
        text_roles, text_roles_right = self.model.role_loss(true, [caption_roles(row.true) for row in rows])
        patches, patches_right = self.model.patches(states, scenes)
        terms = {
            "contrast": self.model.contrastive_loss(logits), "labels": self._label_loss(images, true, scenes),
            "names": self._name_loss(images, scenes, scale), "roles": image_roles + text_roles, "patches": patches,
        }  # fmt: skip
        if self.model.captioner:
            terms["captions"] = self._caption_loss(self.model.captioner, states, scenes)
        right = (logits.argmax(1) == torch.arange(len(logits), device=self.device)).float().mean()
        figures = {"r@1": right.item(), "scale": scale.item(), "image_roles": image_roles_right}
        figures |= {"text_roles": text_roles_right, "patches_right": patches_right}
        figures |= {name: term.item() for name, term in terms.items()}
        return torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum(), figures

    def _captions(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the features [B, D] of the true captions and of the false ones, and which rows [B] lack a false."""
        falses = {k: row.false for k, row in enumerate(rows) if row.false}
        features = self.model.texts(self._ids([*(row.true for row in rows), *falses.values()]))
        true, false = features[: len(rows)], torch.zeros_like(features[: len(rows)])
        false[list(falses)] = features[len(rows) :]
        return true, false, torch.tensor([row.false is None for row in rows], device=self.device)

    def _label_loss(self, images: Tensor, texts: Tensor, scenes: Sequence[Scene]) -> Tensor:
        labels = torch.stack([scene_labels(scene) for scene in scenes]).to(self.device)
        return self.model.label_loss(images, labels) + self.model.label_loss(texts, labels[:, : caption_label_count()])

    def _caption_loss(self, captioner: Coca, states: Tensor, scenes: Sequence[Scene]) -> Tensor:
        return caption_loss(captioner, states, [plain_caption(scene) for scene in scenes], self.tokenizer)

    def _name_loss(self, images: Tensor, scenes: Sequence[Scene], scale: Tensor) -> Tensor:
        """Returns the cross entropy of bare names, those of the batch and some others, for images of one thing."""
        single = {k: scene.things[0].concept for k, scene in enumerate(scenes) if len(scene.things) == 1}
        if not single:
            return images.new_zeros(())
        names = list(dict.fromkeys(single.values()))
        others = [name for name in self.names if name not in names]
        names += self.words.sample(others, min(len(others), max(0, BARE_NAMES - len(names))))
        texts = self.model.texts(self._ids([indefinite(name) for name in names]))
        target = torch.tensor([names.index(name) for name in single.values()], device=self.device)
        return F.cross_entropy(scale * images[list(single)] @ texts.T, target)

    def evaluate(self, folder: Path) -> dict[str, float]:
        """Measures retrieval, hard negatives, zero-shot names and captions on the images held back."""
        rng, indices = random.Random(0), np.arange(self.trained_on, len(self.renders))[-MEASURED:]
        scenes = [self.renders.scene(int(i)) for i in indices]
        images, states = self.model.images(self.renders.images(indices).to(self.device))
        captions = [hard_pair(scene, rng, self.names)[0] for scene in scenes]
        texts = self.model.texts(self._ids(captions))
        retrieved = ((images @ texts.T).argmax(1) == torch.arange(len(scenes), device=self.device)).float().mean()
        figures = {"val_r@1": float(retrieved), "val_top1": self._zero_shot(images, scenes)}
        figures["val_patches"] = self.model.patches(states, scenes)[1]
        for kind in ("hard", "swap", "count"):
            right = self._true_above_false(images, scenes, () if kind == "hard" else (kind,))
            figures |= {f"val_{kind}": float(right.float().mean())} if len(right) else {}
        captioner = self.model.captioner
        return figures | (self._evaluate_captions(captioner, states, scenes, folder) if captioner else {})

    def _zero_shot(self, images: Tensor, scenes: Sequence[Scene]) -> float:
        """Returns the share of images of one thing whose bare name scores highest among all names."""
        single = {k: scene.things[0].concept for k, scene in enumerate(scenes) if len(scene.things) == 1}
        texts = self.model.texts(self._ids([indefinite(name) for name in self.names]))
        best = (images[list(single)] @ texts.T).argmax(1).tolist()
        return float(np.mean([self.names[k] == name for k, name in zip(best, single.values(), strict=True)]))

    def _true_above_false(self, images: Tensor, scenes: Sequence[Scene], kinds: Sequence[str]) -> Tensor:
        """Returns for each scene that such an edit can change whether its true caption scores above the false one."""
        rng = random.Random(0)
        pairs = [hard_pair(scene, rng, self.names, kinds) for scene in scenes]
        texts = {k: (true, edit[1]) for k, (true, edit) in enumerate(pairs) if edit}
        if not texts:
            return torch.zeros(0)
        true, false = (self.model.texts(self._ids(list(column))) for column in zip(*texts.values(), strict=True))
        images = images[list(texts)]
        return (images * true).sum(-1) > (images * false).sum(-1)

    def _evaluate_captions(
        self, captioner: Coca, states: Tensor, scenes: Sequence[Scene], folder: Path
    ) -> dict[str, float]:
        """Writes true and generated captions into a file; returns the loss and the share that is wholly right."""
        pairs = list(zip(map(plain_caption, scenes), captioner.caption(states, self.tokenizer), strict=True))
        (folder / "captions.txt").write_text("".join(f"{true}\n    {own}\n" for true, own in pairs), "utf-8")
        exact = float(np.mean([true == own for true, own in pairs]))
        return {"val_captions": self._caption_loss(captioner, states, scenes).item(), "val_exact": exact}

    def _ids(self, texts: list[str]) -> Tensor:
        """Returns input_ids [B, T], padded to the longest for CLIP (causal attention), else to the maximum length."""
        padding = "longest" if self.model.kind == "clip" else "max_length"
        encoding = self.tokenizer(texts, padding=padding, truncation=True, return_tensors="pt")
        ids: Tensor = encoding["input_ids"].to(self.device)
        return ids


def degraded(images: Tensor) -> Tensor:
    """Blurs a quarter of images [B, 3, H, W] and adds noise to another, so that unfinished samples are recognised."""
    quarter, blur = len(images) // 4, max(2, images.shape[-1] // 64)
    soft, noisy, rest = images.split([quarter, quarter, len(images) - 2 * quarter])
    soft = F.interpolate(F.avg_pool2d(soft, blur), size=images.shape[-2:], mode="bilinear")
    return torch.cat([soft, noisy + 0.1 * torch.randn_like(noisy), rest])
