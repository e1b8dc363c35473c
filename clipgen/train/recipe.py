"""The recipe of storybook: renders, tokenizer, CLIPs, autoencoder, latent head, denoiser, model folder; resumable."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import nn
from transformers import CLIPModel, CLIPTokenizer, CLIPVisionModelWithProjection, SiglipModel

from clipgen.captioning.clipcap import ClipCap
from clipgen.captioning.coca import Coca
from clipgen.clip.encoder import HALF
from clipgen.errors import ClipgenError
from clipgen.models.ids import BUNDLED
from clipgen.train.captioner import BUDGET as CAPTIONER
from clipgen.train.captioner import CaptionerPart, build_captioner, build_coca
from clipgen.train.clip import COCA, ClipPart
from clipgen.train.clip_configs import build_clip, build_judge
from clipgen.train.curves import draw_curves
from clipgen.train.data import Renders
from clipgen.train.latent_head import LatentHeadPart, build_latent_head
from clipgen.train.loop import Budget, Part, fit
from clipgen.train.processes import make_accelerator, seed_of
from clipgen.train.render_file import RenderFile
from clipgen.train.storybook import Parts, assemble, write_part
from clipgen.train.tiers import STAGES, TIERS, Tier
from clipgen.train.tokenizer import corpus, train_tokenizer
from clipgen.train.unet import UnetPart, build_scheduler, build_unet, text_encoder_of
from clipgen.train.vae import FOLD, VaePart, build_vae, latent_scale
from clipgen.world.concepts import vocabulary_hash

Model = TypeVar("Model", bound=nn.Module)
FIRST_SEEDS = {"wide": 0, "narrow": 1_000_000, "judge": 2_000_000}  # the sets of renders share no scene


class Recipe:
    """Training from nothing in one folder: out/renders-*, tokenizer, one folder per stage, and storybook at the end."""

    def __init__(
        self, out: Path, tier: str, *, warm_start: Path | None = None, mapper: str = "mlp",
        say: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self.out, self.tier, self.warm_start, self.mapper, self.say = out, tier_of(tier), warm_start, mapper, say
        self.accelerator = make_accelerator()
        out.mkdir(parents=True, exist_ok=True)

    def run(self, minutes: float) -> Path:
        """Runs every stage for its share of the minutes; returns the model folder."""
        for stage in STAGES:
            self.stage(stage, minutes * self.tier.shares[stage])
        return self.assemble()

    def stage(self, name: str, minutes: float) -> None:
        """Trains one stage for `minutes` in all, resumed runs added up, and writes its model."""
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        parts: dict[str, Callable[[float], Part]] = {
            "clip": self._clip, "judge": self._judge, "vae": self._vae, "latent_head": self._latent_head,
            "unet": self._unet, "captioner": self._captioner,
        }  # fmt: skip
        with self.accelerator.main_process_first():  # other processes open what the first one has written
            part = parts[name](minutes)
        self._warm(name, part.model)
        if self.accelerator.is_main_process:
            (folder / "run.json").write_text(json.dumps(self._facts(name, minutes), indent=2) + "\n")
        model = fit(part, self._budget(name, minutes), folder, self.accelerator, self.say)
        if self.accelerator.is_main_process:
            model.save_pretrained(folder / "model")  # type: ignore[operator]
            draw_curves(folder / "log.jsonl", folder / "curves.png")

    def assemble(self) -> Path:
        """Writes the storybook folder from the trained stages."""
        folder = self.out / "storybook"
        parts = Parts(
            clip=self._trained(CLIPModel, "clip"), judge=self._trained(SiglipModel, "judge"),
            latent_head=self._trained(CLIPVisionModelWithProjection, "latent_head"), tokenizer=self.tokenizer(),
            vae=self._scaled_vae(), unet=self._trained(UNet2DConditionModel, "unet"), scheduler=build_scheduler(),
            side=self.tier.side, vocabulary=self.tier.narrow.tier,
        )  # fmt: skip
        assemble(folder, parts)
        write_part(self._coca(), COCA, folder)
        if (self.out / "captioner" / "model").exists():
            write_part(self._trained(ClipCap, "captioner"), "captioner", folder)
        return folder

    def tokenizer(self) -> CLIPTokenizer:
        """Returns the tokenizer, trained if it does not exist yet; a warm start uses the bundled one."""
        folder = self.out / "tokenizer"
        if not folder.exists():
            shipped = self.warm_start and CLIPTokenizer.from_pretrained(self.warm_start / "tokenizer")
            (shipped or train_tokenizer(corpus(60_000))).save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(folder)

    def renders(self, name: str, minutes: float) -> Renders:
        """Returns the renders "wide" (CLIP, autoencoder), "narrow" (denoiser) or "judge", rendering missing ones.

        Rendering takes at most a fifth of the minutes.
        """
        mix = self.tier.narrow if name == "narrow" else self.tier.wide
        folder = self.out / f"renders-{name}"
        file = RenderFile(folder, mix=mix, size=self.tier.side, first_seed=FIRST_SEEDS[name])
        file.fill(self.tier.renders, processes=os.cpu_count() or 1, minutes=minutes, say=self.say)
        return Renders.open(file, self.tier.renders)

    def _clip(self, minutes: float) -> ClipPart:
        tokenizer, renders = self.tokenizer(), self.renders("wide", minutes)
        clip = build_clip(tokenizer)
        coca, batch = build_coca(tokenizer, clip.config.vision_config.hidden_size), self.tier.budgets["clip"].batch
        return ClipPart(clip, tokenizer, renders, batch, self._seed(), coca)

    def _judge(self, minutes: float) -> ClipPart:
        tokenizer, renders = self.tokenizer(), self.renders("judge", minutes)
        return ClipPart(build_judge(tokenizer), tokenizer, renders, self.tier.budgets["judge"].batch, self._seed())

    def _vae(self, minutes: float) -> VaePart:
        vae = build_vae()
        if (self.out / "unet").exists():  # the denoiser depends on these latents: only the decoder is trained
            vae.encoder.requires_grad_(False)
            vae.register_to_config(scaling_factor=self._trained(AutoencoderTiny, "vae").config.scaling_factor)
        return VaePart(vae, self.renders("wide", minutes), self.tier.budgets["vae"].batch, self._seed())

    def _latent_head(self, minutes: float) -> LatentHeadPart:
        clip, vae = self._trained(CLIPModel, "clip"), self._scaled_vae(minutes)
        head = build_latent_head(clip, vae.config.latent_channels, self.tier.side // FOLD)
        batch, renders = self.tier.budgets["latent_head"].batch, self.renders("wide", minutes)
        return LatentHeadPart(head, clip, self.tokenizer(), vae, renders, batch, self._seed())

    def _unet(self, minutes: float) -> UnetPart:
        clip, vae, batch = self._trained(CLIPModel, "clip"), self._scaled_vae(minutes), self.tier.budgets["unet"].batch
        width, side = clip.config.text_config.hidden_size, self.tier.side // FOLD
        unet = build_unet(width, self.tier.unet_channels, side, vae.config.latent_channels)
        tokenizer, renders = self.tokenizer(), self.renders("narrow", minutes)
        return UnetPart(unet, text_encoder_of(clip), vae, tokenizer, renders, batch, self._seed(), clip=clip)

    def _captioner(self, minutes: float) -> CaptionerPart:
        clip, tokenizer, renders = self._trained(CLIPModel, "clip"), self.tokenizer(), self.renders("wide", minutes)
        head = build_captioner(tokenizer, clip.config.projection_dim, self.mapper)
        preprocessor = {"image_mean": HALF, "image_std": HALF}
        return CaptionerPart(head, clip, tokenizer, preprocessor, renders, CAPTIONER.batch, self._seed())

    def _coca(self) -> Coca:
        """Returns the CoCa that was trained with the CLIP, the bundled one if no CLIP was trained here."""
        folder = self.out / "clip" / COCA
        if not folder.exists() and self.warm_start:
            folder = self.warm_start / COCA
        coca: Coca = Coca.from_pretrained(folder).float()
        return coca

    def _budget(self, name: str, minutes: float) -> Budget:
        """Returns the budget of a stage."""
        return replace(CAPTIONER, minutes=minutes) if name == "captioner" else self.tier.budget(name, minutes)

    def _scaled_vae(self, minutes: float = 1.0) -> AutoencoderTiny:
        """Returns the trained autoencoder; its scaling factor is measured once, since the denoiser depends on it."""
        vae = self._trained(AutoencoderTiny, "vae")
        if vae.config.scaling_factor == 1.0:  # not measured yet
            vae.register_to_config(scaling_factor=latent_scale(vae, self.renders("narrow", minutes)))
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
        """Loads bundled weights into an untrained stage; weights of another architecture are left out."""
        if self.warm_start is None or (self.out / stage / "state.safetensors").exists():
            return
        if not (self.warm_start / stage).exists():
            return
        bundled = type(model).from_pretrained(self.warm_start / stage).float().state_dict()  # type: ignore[attr-defined]
        shapes, expected = ({name: value.shape for name, value in s.items()} for s in (bundled, model.state_dict()))
        if shapes == expected:
            model.load_state_dict(bundled)
        else:
            self.say(f"The bundled '{stage}' has another architecture; this one starts from nothing.")

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
    """Returns the folder of the bundled weights. Raises ClipgenError if this installation has none."""
    folder = BUNDLED["storybook"]
    if not (folder / "unet").exists():
        raise ClipgenError("This installation has no storybook weights to start from.")
    return folder


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return done.stdout.strip() or "unknown"
