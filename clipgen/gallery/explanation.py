"""Explains an image word by word: where the denoiser attended to it, and how much it adds to the CLIP score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clipgen.clip.score import Scorer
from clipgen.clip.word_importance import normalise_maps, patch_maps, similarity_drops, word_spans
from clipgen.errors import SettingsError
from clipgen.families.attention import AttentionMaps, has_text_cross_attention, recording_attention
from clipgen.families.prompt_tokens import token_limit
from clipgen.families.text_encoders import TextEncoder
from clipgen.gallery.api import load_clip
from clipgen.gallery.features import iter_image_features
from clipgen.pipeline.pipeline import Pipeline
from clipgen.pixels import to_pixels
from clipgen.settings.settings import Settings
from clipgen.text import TokenizedPrompt

MapSource = Literal["cross-attention", "patch similarity"]
Span = tuple[int, int]
MAX_JSON_SIDE = 16  # height and width of a map in JSON


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps and similarity drops for the words of one image's text.

    Attributes:
        maps: [W, h, w] in [0, 1], of any size.
        source: whether the maps are the denoiser's cross-attention or CLIP's similarity to patches.
        similarity: the cosine similarity of image and text, None without a CLIP.
        drops: how far the similarity falls without each word, None without a CLIP; below 0 the image lacks the word.
    """

    image: Image.Image
    text: str
    words: tuple[str, ...]
    maps: Tensor
    source: MapSource
    similarity: float | None = None
    drops: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns everything except the image as JSON values, with maps of at most 16 x 16."""
        height, width = self.maps.shape[1:]
        small = F.adaptive_avg_pool2d(self.maps, (min(MAX_JSON_SIDE, height), min(MAX_JSON_SIDE, width)))
        rounded = [[[round(value, 3) for value in row] for row in each] for each in small.tolist()]
        drops: Sequence[float | None] = self.drops or [None] * len(self.words)
        words = [
            {"word": word, "drop": drop, "map": each}
            for word, drop, each in zip(self.words, drops, rounded, strict=True)
        ]
        return {"text": self.text, "source": self.source, "similarity": self.similarity, "words": words}


def explain(pipeline: Pipeline, settings: Settings) -> Explanation:
    """Generates an image again and returns where the denoiser attended to each word of its prompt.

    With the settings of an image's record that image is reproduced. Variations of an image and models without
    cross-attention get patch similarities by the model's CLIP instead. Raises SettingsError if the model has neither,
    or the prompt has no words, and the errors of generation.
    """
    if "pick" in settings.guidance:  # the candidate that wins is generated again alone
        settings = pipeline.run(settings.replace(images=1))[0].settings
    family, scorer = pipeline.family, pipeline.scorer
    [batch] = pipeline.plan(settings.replace(images=1))
    single, text = batch.images[0], batch.texts[0]
    if not has_text_cross_attention(family) or single.vary is not None:  # a variation attends to other tokens
        if scorer is None:
            raise SettingsError(f"model '{pipeline.origin.model}' has no cross-attention and no CLIP", field="model")
        return explain_image(pipeline.run(single)[0].image, text, model=scorer)
    spans, tokens = words_with_tokens(pipeline.tokenize_prompt(single), family.text_encoders[0])
    _check_words(text, spans)
    states = pipeline.encode_prompt(single)["encoder_hidden_states"]
    attention = AttentionMaps(states, family.latent_shape(*batch.size)[1:])
    with recording_attention(family, attention):
        [result] = pipeline.run(single)
    maps = torch.stack([attention.total[positions].mean(dim=0) for positions in tokens]).cpu()
    return _explanation(scorer, result.image, text, spans, normalise_maps(maps), "cross-attention")


def explain_image(image: Image.Image, text: str, *, model: str | Scorer = "storybook") -> Explanation:
    """Returns which patches of any image match each word of a text, by the CLIP features of each patch alone.

    It needs no pipeline, so that it works for images that cannot be generated again. Raises SettingsError for a text
    without words.
    """
    scorer = load_clip(model) if isinstance(model, str) else model
    spans = word_spans(text)
    _check_words(text, spans)
    pixels = to_pixels(image).to(scorer.encoder.model.device)
    maps = patch_maps(scorer.encoder, pixels, [text[start:end] for start, end in spans]).cpu()
    return _explanation(scorer, image, text, spans, maps, "patch similarity")


def _check_words(text: str, spans: Sequence[Span]) -> None:
    if not spans:
        raise SettingsError(f"prompt must contain a word, got '{text}'", field="prompt")


def words_with_tokens(prompt: TokenizedPrompt, encoder: TextEncoder) -> tuple[list[Span], list[list[int]]]:
    """Returns the spans of the words that are not truncated, and the positions of each word's tokens.

    The spans count from the first character of the prompt that is no space. `encoder` is the first text encoder.
    """
    text = prompt.text.strip()
    first_character, limit = prompt.text.index(text), token_limit(encoder)
    starts = [
        (token.start - first_character, window * encoder.max_length + 1 + k)  # 1: each window has a start token
        for window, window_tokens in enumerate(prompt.windows[0])
        for k, token in enumerate(window_tokens[:limit])
    ]
    spans, tokens = [], []
    for start, end in word_spans(text):
        positions = [position for first, position in starts if start <= first < end]
        if positions:
            spans.append((start, end))
            tokens.append(positions)
    return spans, tokens


def _explanation(
    scorer: Scorer | None, image: Image.Image, text: str, spans: Sequence[Span], maps: Tensor, source: MapSource
) -> Explanation:
    words = tuple(text[start:end] for start, end in spans)
    if scorer is None:
        return Explanation(image, text, words, maps, source)
    encoder = scorer.encoder
    [(_, features)] = iter_image_features(encoder, [(None, image)])
    similarity = float(encoder.text_features([text])[0] @ features)
    drops = tuple(similarity_drops(encoder, features, text, spans))
    return Explanation(image, text, words, maps, source, similarity, drops)
