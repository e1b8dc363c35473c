"""Pictures into words: CLIP's vector of a picture becomes the first words of a small GPT-2, which goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FOLDER = "captioner"  # in a model folder, beside its clip
MAPPER, SIZES = "mapper.safetensors", "mapper.json"
LONGEST = 32  # tokens of a caption


class Captioner(nn.Module):
    """A mapper from CLIP's vectors to `prefix` word embeddings, and the decoder that reads them.

    ClipCap with an MLP mapper: Mokady et al. 2021 (arXiv 2111.09734, section 3.1). `decoder` is a GPT2LMHeadModel.
    """

    def __init__(self, decoder: Any, features: int, prefix: int) -> None:
        super().__init__()
        width = decoder.config.n_embd
        self.decoder, self.features, self.prefix = decoder, features, prefix
        hidden = width * prefix // 2
        self.mapper = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, width * prefix))

    def lead(self, features: Tensor) -> Tensor:
        """Returns the words that stand for pictures, [B, prefix, W], of unit vectors [B, D]."""
        lead: Tensor = self.mapper(features).unflatten(1, (self.prefix, -1))
        return lead

    def forward(self, features: Tensor, ids: Tensor) -> Tensor:
        """Returns the logits [B, T, V] of each token of captions [B, T], given the picture and the tokens before it."""
        words = self.decoder.transformer.wte(ids[:, :-1])
        logits: Tensor = self.decoder(inputs_embeds=torch.cat([self.lead(features), words], dim=1)).logits
        return logits[:, self.prefix - 1 :]

    @torch.no_grad()
    def write(self, features: Tensor, tokenizer: Any) -> list[str]:
        """Returns a caption for each of the unit vectors [B, D], always the same, by a beam of four."""
        lead = self.lead(features)
        seen = torch.ones(lead.shape[:2], dtype=torch.long, device=lead.device)
        ids = self.decoder.generate(
            inputs_embeds=lead, attention_mask=seen, max_new_tokens=LONGEST, num_beams=4, do_sample=False,
            pad_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        return [" ".join(text.split()) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def save_pretrained(self, folder: Path) -> None:
        """Writes decoder and mapper into a folder."""
        self.decoder.save_pretrained(folder)
        sizes = {"features": self.features, "prefix": self.prefix}
        (folder / SIZES).write_text(json.dumps(sizes) + "\n", "utf-8")
        save_file(
            {name: value.detach().contiguous() for name, value in self.mapper.state_dict().items()}, folder / MAPPER
        )

    @classmethod
    def from_pretrained(cls, folder: Path) -> Captioner:
        """Reads what `save_pretrained` wrote."""
        from transformers import GPT2LMHeadModel

        sizes = json.loads((folder / SIZES).read_text("utf-8"))
        decoder = GPT2LMHeadModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        captioner = cls(decoder, sizes["features"], sizes["prefix"])
        captioner.mapper.load_state_dict(load_file(folder / MAPPER))
        return captioner.eval()
