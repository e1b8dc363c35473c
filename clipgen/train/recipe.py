"""The recipe of storybook: renders -> tokenizer -> CLIPs -> autoencoder -> head, denoiser -> folder; all resumable."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import nn
from transformers import CLIPModel, CLIPTokenizer, CLIPVisionModelWithProjection, SiglipModel

from clipgen.captioning.clipcap import ClipCap
from clipgen.captioning.coca import Coca
from clipgen.clip.encoder import HALF
from clipgen.errors import ClipgenError
from clipgen.models.find import BUNDLED
from clipgen.train.captioner import BUDGET as CAPTIONER
from clipgen.train.captioner import CaptionerPart, build_captioner, build_coca
from clipgen.train.clip import COCA, ClipPart
from clipgen.train.clip_configs import build_clip, build_judge
from clipgen.train.curves import draw_curves
from clipgen.train.data import Renders, rendered
from clipgen.train.latent_head import LatentHeadPart, build_latent_head
from clipgen.train.loop import Budget, Part, fit
from clipgen.train.processes import make_accelerator, seed_of
from clipgen.train.storybook import Parts, assemble, put_back
from clipgen.train.tiers import STAGES, TIERS, Tier
from clipgen.train.tokenizer import corpus, train_tokenizer
from clipgen.train.unet import UnetPart, build_scheduler, build_unet, text_encoder_of
from clipgen.train.vae import FOLD, VaePart, build_vae, latent_scale
from clipgen.world.concepts import vocabulary_hash

Model = TypeVar("Model", bound=nn.Module)
FIRST_SEEDS = {"wide": 0, "narrow": 1_000_000, "judge": 2_000_000}  # no two sets of renders share a scene


class Recipe:
    """One training in one folder: out/renders-*, tokenizer, clip, vae, unet, and storybook at the end."""

    def __init__(
        self, out: Path, tier: str, *, warm_start: Path | None = None, mapper: str = "mlp",
        say: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self.out, self.tier, self.warm_start, self.mapper, self.say = out, tier_of(tier), warm_start, mapper, say
        self.accelerator = make_accelerator()
        out.mkdir(parents=True, exist_ok=True)

    def run(self, minutes: float) -> Path:
        """Runs every stage for its share of the minutes and returns the assembled folder."""
        for stage in STAGES:
            self.stage(stage, minutes * self.tier.shares[stage])
        return self.assemble()

    def stage(self, name: str, minutes: float) -> None:
        """Trains one stage until it has had `minutes` in all, and writes its model beside its state."""
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        parts: dict[str, Callable[[], Part]] = {
            "clip": self._clip, "judge": self._judge, "vae": self._vae, "latent_head": self._latent_head,
            "unet": self._unet, "captioner": self._captioner,
        }  # fmt: skip
        with self.accelerator.main_process_first():  # the others find what it has written
            part = parts[name]()
        self._warm(name, part.model)
        if self.accelerator.is_main_process:
            (folder / "run.json").write_text(json.dumps(self._facts(name, minutes), indent=2) + "\n")
        model = fit(part, self._budget(name, minutes), folder, self.accelerator, self.say)
        if self.accelerator.is_main_process:
            model.save_pretrained(folder / "model")  # type: ignore[operator]
            draw_curves(folder / "log.jsonl", folder / "curves.png")

    def assemble(self) -> Path:
        """Writes the storybook folder from the trained parts."""
        folder = self.out / "storybook"
        parts = Parts(
            clip=self._trained(CLIPModel, "clip"), judge=self._trained(SiglipModel, "judge"),
            latent_head=self._trained(CLIPVisionModelWithProjection, "latent_head"), tokenizer=self.tokenizer(),
            vae=self._scaled_vae(), unet=self._trained(UNet2DConditionModel, "unet"), scheduler=build_scheduler(),
            side=self.tier.side, vocabulary=self.tier.narrow.tier,
        )  # fmt: skip
        assemble(folder, parts)
        put_back(self._writer(), COCA, folder)
        if (self.out / "captioner" / "model").exists():
            put_back(self._trained(ClipCap, "captioner"), "captioner", folder)
        return folder

    def tokenizer(self) -> CLIPTokenizer:
        """Returns the tokenizer, trained when it is not there; a warm start keeps the shipped one."""
        folder = self.out / "tokenizer"
        if not folder.exists():
            shipped = self.warm_start and CLIPTokenizer.from_pretrained(self.warm_start / "tokenizer")
            (shipped or train_tokenizer(corpus(60_000))).save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(folder)

    def renders(self, name: str) -> Renders:
        """Opens the renders "wide" (CLIP, autoencoder), "narrow" (denoiser) or "judge", drawing them when not there."""
        mix = self.tier.narrow if name == "narrow" else self.tier.wide
        return rendered(
            self.out / f"renders-{name}", self.tier.renders, mix=mix, size=self.tier.side,
            first_seed=FIRST_SEEDS[name], processes=torch.multiprocessing.cpu_count(),
        )  # fmt: skip

    def _clip(self) -> ClipPart:
        tokenizer = self.tokenizer()
        clip = build_clip(tokenizer)
        writer, batch = build_coca(tokenizer, clip.config.vision_config.hidden_size), self.tier.budgets["clip"].batch
        return ClipPart(clip, tokenizer, self.renders("wide"), batch, self._seed(), writer)

    def _judge(self) -> ClipPart:
        tokenizer = self.tokenizer()
        judge = build_judge(tokenizer)
        return ClipPart(judge, tokenizer, self.renders("judge"), self.tier.budgets["judge"].batch, self._seed())

    def _vae(self) -> VaePart:
        vae = build_vae()
        if self.warm_start or (self.out / "unet").exists():  # a denoiser knows these latents: only the decoder learns
            vae.encoder.requires_grad_(False)
            vae.register_to_config(scaling_factor=self._trained(AutoencoderTiny, "vae").config.scaling_factor)
        return VaePart(vae, self.renders("wide"), self.tier.budgets["vae"].batch, self._seed())

    def _latent_head(self) -> LatentHeadPart:
        clip, vae = self._trained(CLIPModel, "clip"), self._scaled_vae()
        head = build_latent_head(clip, vae.config.latent_channels, self.tier.side // FOLD)
        batch = self.tier.budgets["latent_head"].batch
        return LatentHeadPart(head, clip, self.tokenizer(), vae, self.renders("wide"), batch, self._seed())

    def _unet(self) -> UnetPart:
        clip, vae, batch = self._trained(CLIPModel, "clip"), self._scaled_vae(), self.tier.budgets["unet"].batch
        width, side = clip.config.text_config.hidden_size, self.tier.side // FOLD
        unet = build_unet(width, self.tier.unet_channels, side, vae.config.latent_channels)
        tokenizer, renders = self.tokenizer(), self.renders("narrow")
        return UnetPart(unet, text_encoder_of(clip), vae, tokenizer, renders, batch, self._seed(), clip=clip)

    def _captioner(self) -> CaptionerPart:
        clip, tokenizer = self._trained(CLIPModel, "clip"), self.tokenizer()
        head = build_captioner(tokenizer, clip.config.projection_dim, self.mapper)
        preprocessor = {"image_mean": HALF, "image_std": HALF}  # as storybook's CLIPs see
        return CaptionerPart(head, clip, tokenizer, preprocessor, self.renders("wide"), CAPTIONER.batch, self._seed())

    def _writer(self) -> Coca:
        """Returns the CoCa that was trained with the CLIP, of the box where no CLIP was trained here."""
        folder = self.out / "clip" / COCA
        if not folder.exists() and self.warm_start:
            folder = self.warm_start / COCA
        writer: Coca = Coca.from_pretrained(folder).float()
        return writer

    def _budget(self, name: str, minutes: float) -> Budget:
        """Returns the budget of a stage."""
        return replace(CAPTIONER, minutes=minutes) if name == "captioner" else self.tier.budget(name, minutes)

    def _scaled_vae(self) -> AutoencoderTiny:
        """Returns the trained autoencoder; its scaling factor is measured once: the denoiser depends on it."""
        vae = self._trained(AutoencoderTiny, "vae")
        if vae.config.scaling_factor == 1.0:  # as built: not measured yet
            vae.register_to_config(scaling_factor=latent_scale(vae, self.renders("narrow")))
            vae.save_pretrained(self.out / "vae" / "model")
        return vae.requires_grad_(False)

    def _trained(self, kind: type[Model], stage: str) -> Model:
        folder = self.out / stage / "model"
        if not folder.exists() and self.warm_start:
            folder = self.warm_start / stage
        if not folder.exists():
            raise ClipgenError(f"Stage '{stage}' has not been trained in '{self.out}'. Run: clipgen train {stage}")
        return kind.from_pretrained(folder).float()  # type: ignore[attr-defined, no-any-return]

    def _warm(self, stage: str, model: nn.Module) -> None:
        """Loads shipped weights into a fresh stage, if there are such."""
        known = self.warm_start is not None and (self.warm_start / stage).exists()
        if self.warm_start is None or not known or (self.out / stage / "state.safetensors").exists():
            return
        shipped = type(model).from_pretrained(self.warm_start / stage)  # type: ignore[attr-defined]
        model.load_state_dict(shipped.float().state_dict())

    def _seed(self) -> int:
        return seed_of(self.accelerator)

    def _facts(self, stage: str, minutes: float) -> dict[str, object]:
        names = ("torch", "diffusers", "transformers", "accelerate", "pillow")
        return {
            "stage": stage, "minutes": minutes, "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(), "vocabulary": vocabulary_hash(), "python": platform.python_version(),
            "versions": {name: version(name) for name in names}, "device": str(self.accelerator.device),
            "processes": self.accelerator.num_processes,
        }  # fmt: skip


def tier_of(name: str) -> Tier:
    """Returns the tier of that name; raises ClipgenError."""
    if name not in TIERS:
        raise ClipgenError(f"Unknown tier '{name}'. Tiers: {', '.join(TIERS)}.", field="tier", allowed=list(TIERS))
    return TIERS[name]


def shipped() -> Path:
    """Returns the folder of the bundled weights. Raises ClipgenError if this installation carries none."""
    folder = BUNDLED["storybook"]
    if not (folder / "unet").exists():
        raise ClipgenError("This installation carries no storybook weights to start from.")
    return folder


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return done.stdout.strip() or "unknown"
