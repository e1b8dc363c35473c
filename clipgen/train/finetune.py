"""Fine-tunes parts of storybook on captioned images; each trained part is written back into a model folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from clipgen.captioning.clipcap import ClipCap
from clipgen.captioning.coca import Coca
from clipgen.models.load_captioner import HEAD_FOLDERS
from clipgen.train.captioned import Captioned, captioned
from clipgen.train.captioner import BUDGET as CAPTIONER
from clipgen.train.captioner import CaptionerPart, build_captioner, build_coca
from clipgen.train.curves import draw_curves
from clipgen.train.loop import Budget, Part, Say, fit
from clipgen.train.pair_clip import PairPart
from clipgen.train.processes import make_accelerator, seed_of
from clipgen.train.recipe import shipped, tier_of
from clipgen.train.storybook import drop_vocabulary, write_part
from clipgen.train.unet import UnetPart
from clipgen.train.vae import VaePart

RATE_FACTOR = 0.3  # learning rate relative to training from nothing
WARM_UP = 50  # steps
CAPTIONERS = HEAD_FOLDERS.values()
SAVE_MINUTES = 1.0
SAMPLE_CAPTIONS = 4  # captions that the denoiser draws when it is evaluated


class FineTuning:
    """Fine-tuning in one folder: out/pictures, one folder per trained part, and the whole model as out/model.

    It starts from the bundled weights and keeps their tokenizer and image size. `data` is a folder or a CSV file.
    Raises SettingsError for data with too few images, ClipgenError if no weights are bundled.
    """

    def __init__(self, data: Path, out: Path, tier: str = "cpu", *, mapper: str = "mlp", say: Say = print) -> None:
        self.out, self.say, self.mapper, self.budgets = out, say, mapper, tier_of(tier).budgets
        self.accelerator = make_accelerator()
        self.base = self._model_folder()
        size: int = json.loads((self.base / "clipgen.json").read_text("utf-8"))["settings"]["width"]
        with self.accelerator.main_process_first():  # other processes open what the first one has written
            self.data: Captioned = captioned(data, out / "pictures", size)
        if self.accelerator.is_main_process:
            self._report_data()

    def stage(self, name: str, minutes: float) -> Path:
        """Trains one part for `minutes` in all, resumed runs added up; returns the model folder that contains it."""
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        parts: dict[str, Callable[[], Part]] = {
            "clip": self._clip, "vae": self._vae, "unet": self._unet, "captioner": self._captioner, "coca": self._coca,
        }  # fmt: skip
        model = fit(parts[name](), self._budget(name, minutes), folder, self.accelerator, self.say)
        if self.accelerator.is_main_process:
            draw_curves(folder / "log.jsonl", folder / "curves.png")
            write_part(model, name, self.out / "model")
        self.accelerator.wait_for_everyone()
        return self.out / "model"

    def _report_data(self) -> None:
        if self.data.skipped:
            self.say(f"{self.data.skipped:,} pictures could not be read and are left out")
        self.say(f"{len(self.data):,} captioned pictures")

    def _model_folder(self) -> Path:
        """Returns the model that is trained, a copy of the bundled one the first time."""
        folder = self.out / "model"
        with self.accelerator.main_process_first():
            if not folder.exists():
                leave_out = shutil.ignore_patterns("samples", "MODEL_CARD.md")
                shutil.copytree(shipped(), folder.with_suffix(".part"), ignore=leave_out, dirs_exist_ok=True)
                drop_vocabulary(folder.with_suffix(".part"))
                folder.with_suffix(".part").rename(folder)
        return folder

    def _budget(self, name: str, minutes: float) -> Budget:
        """Returns the budget of a part, with a lower learning rate if its weights are bundled."""
        budget = CAPTIONER if name in CAPTIONERS else self.budgets[name]
        factor = RATE_FACTOR if (shipped() / name).exists() else 1.0
        rate = factor * budget.learning_rate
        return replace(budget, minutes=minutes, learning_rate=rate, warmup=WARM_UP, save_minutes=SAVE_MINUTES)

    def _clip(self) -> PairPart:
        clip, tokenizer, preprocessor = self._image_encoder()
        return PairPart(clip, tokenizer, preprocessor, self.data, self.budgets["clip"].batch, seed_of(self.accelerator))

    def _captioner(self) -> CaptionerPart:
        clip, tokenizer, preprocessor = self._image_encoder()
        bundled, width = shipped() / "captioner", clip.config.projection_dim
        untrained = build_captioner(tokenizer, width, self.mapper)
        head = ClipCap.from_pretrained(bundled).float() if bundled.exists() else untrained
        return CaptionerPart(head, clip, tokenizer, preprocessor, self.data, CAPTIONER.batch, seed_of(self.accelerator))

    def _coca(self) -> CaptionerPart:
        clip, tokenizer, preprocessor = self._image_encoder()
        bundled, width = shipped() / "coca", clip.config.vision_config.hidden_size
        head = Coca.from_pretrained(bundled).float() if bundled.exists() else build_coca(tokenizer, width)
        return CaptionerPart(head, clip, tokenizer, preprocessor, self.data, CAPTIONER.batch, seed_of(self.accelerator))

    def _image_encoder(self) -> tuple[CLIPModel, CLIPTokenizer, dict[str, Any]]:
        """Returns the CLIP, its tokenizer and its preprocessor config."""
        folder = self.base / "clip"
        preprocessor = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
        return CLIPModel.from_pretrained(folder).float(), self._tokenizer(), preprocessor

    def _vae(self) -> VaePart:
        vae = self._autoencoder()
        vae.encoder.requires_grad_(False)  # the denoiser depends on these latents: only the decoder is trained
        return VaePart(vae, self.data, self.budgets["vae"].batch, seed_of(self.accelerator))

    def _unet(self) -> UnetPart:
        unet = UNet2DConditionModel.from_pretrained(self.base / "unet").float()
        text_encoder = CLIPTextModel.from_pretrained(self.base / "text_encoder").float()
        vae = self._autoencoder().requires_grad_(False)
        batch = min(self.budgets["unet"].batch, len(self.data))
        captions = list(dict.fromkeys(lines[0] for lines in self.data.captions))[:SAMPLE_CAPTIONS]
        seed = seed_of(self.accelerator)
        return UnetPart(unet, text_encoder, vae, self._tokenizer(), self.data, batch, seed, prompts=captions)

    def _tokenizer(self) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(self.base / "tokenizer")

    def _autoencoder(self) -> AutoencoderTiny:
        return AutoencoderTiny.from_pretrained(self.base / "vae").float()
