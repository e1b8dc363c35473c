"""Tiny SigLIP 1, SigLIP 2 and SigLIP 2 NaFlex models with random weights, and their tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SIZES = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
MAX_LENGTH = 16
LETTERS = "abcdefghijklmnopqrstuvwxyz!"
WORDS = ["<pad>", "</s>", "<unk>", "▁", *LETTERS]


def tokenizer(is_siglip1: bool) -> Any:
    """A tokenizer of single letters that keeps case: Unigram for SigLIP 1, BPE for SigLIP 2."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    by_word = {word: index for index, word in enumerate(WORDS)}
    model = (
        models.Unigram([(word, -float(index)) for word, index in by_word.items()], unk_id=2)
        if is_siglip1
        else models.BPE(vocab=by_word, merges=[], unk_token="<unk>")
    )
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        pad_token="</s>" if is_siglip1 else "<pad>",
        unk_token="<unk>",
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids"],
    )


def model(kind: str) -> Any:
    """A SiglipModel of 32 x 32 pixels, or a Siglip2Model with as many pixels in its patches."""
    from transformers import Siglip2Config, Siglip2Model, SiglipConfig, SiglipModel

    torch.manual_seed(0)
    text = {**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": MAX_LENGTH}
    if kind == "siglip2":
        vision = {**SIZES, "num_patches": 16, "patch_size": 8}
        return Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)).eval().requires_grad_(False)
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    return SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval().requires_grad_(False)


def save(folder: Path, kind: str) -> Path:
    """Saves a model folder as on the hub: weights, tokenizer, preprocessor."""
    from transformers import Siglip2ImageProcessorPil, SiglipImageProcessorPil

    model(kind).save_pretrained(folder)
    tokenizer(is_siglip1=kind == "siglip").save_pretrained(folder)
    square = {"height": 32, "width": 32}
    processor = (
        Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
        if kind == "siglip2"
        else SiglipImageProcessorPil(size=square)
    )
    processor.save_pretrained(folder)
    return folder
