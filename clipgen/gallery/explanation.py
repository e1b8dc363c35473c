"""Why a picture looks as it does: where the model looked for each word, and what each word adds to the similarity."""

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
from clipgen.families.attention import WordAttention, listening, reads_words
from clipgen.families.text_encoders import TextEncoder
from clipgen.gallery.features import image_to_pixels, iter_image_features
from clipgen.pipeline.pipeline import Pipeline
from clipgen.pipeline.plan import plan
from clipgen.settings.settings import Settings

Source = Literal["cross-attention", "patch similarity"]
MAP_SIDE = 16  # places along a side of a map in JSON


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one picture owes to each word of its text.

    `maps` [W, h, w] in [0, 1], h and w of no fixed size: `source` says whether they are the cross-attention of a replay
    or only CLIP's opinion of patches. `drops` = how far the similarity falls without the word, None without a CLIP;
    below 0 the picture lacks it.
    """

    image: Image.Image
    text: str
    words: tuple[str, ...]
    maps: Tensor
    source: Source
    similarity: float | None = None
    drops: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the picture, JSON-safe, the maps at most 16 x 16."""
        height, width = self.maps.shape[1:]
        small = F.adaptive_avg_pool2d(self.maps, (min(MAP_SIDE, height), min(MAP_SIDE, width)))
        rounded = [[[round(value, 3) for value in row] for row in each] for each in small.tolist()]
        lost: Sequence[float | None] = self.drops or [None] * len(self.words)
        words = [
            {"word": word, "drop": drop, "map": each}
            for word, drop, each in zip(self.words, lost, rounded, strict=True)
        ]
        return {"text": self.text, "source": self.source, "similarity": self.similarity, "words": words}


def explain(pipeline: Pipeline, settings: Settings) -> Explanation:
    """Draws a picture once more and returns where the denoiser looked for each word of its prompt.

    Settings out of a picture's record give that picture. Variations of a picture, and models without cross-attention,
    get patch similarity, by the model's own CLIP. Raises SettingsError where there is neither or no word, and what
    drawing raises.
    """
    if "pick" in settings.guidance:  # its candidates are many pictures: the one that wins is drawn again alone
        settings = pipeline.run(settings.replace(images=1))[0].settings
    family, scorer = pipeline.family, pipeline.scorer
    [batch] = plan(
        settings.replace(images=1), pipeline.origin.model, pipeline.defaults, pipeline.device, pipeline.vocabulary
    )
    alone, text = batch.pictures[0], batch.texts[0]
    if not reads_words(family) or alone.vary is not None:  # what was read of a picture is no words
        if scorer is None:
            raise SettingsError(f"model '{pipeline.origin.model}' has no cross-attention and no CLIP", field="model")
        return explain_image(scorer, pipeline.run(alone)[0].image, text)
    spans, tokens = words_read(text, family.text_encoders[0])
    _check_words(text, spans)
    heard = WordAttention(pipeline.encode_prompt(alone)["encoder_hidden_states"], family.latent_shape(*batch.size)[1:])
    with listening(family, heard):
        [result] = pipeline.run(alone)
    maps = torch.stack([heard.total[places].mean(dim=0) for places in tokens]).cpu()
    return _explained(result.image, text, spans, normalise_maps(maps), "cross-attention", scorer)


def explain_image(scorer: Scorer, image: Image.Image, text: str) -> Explanation:
    """Returns which patches of any picture look like each word of a text, to a CLIP that sees one patch at a time.

    It is what can be said of a picture whose making nobody can repeat. Raises SettingsError for a text without words.
    """
    spans = word_spans(text)
    _check_words(text, spans)
    pixels = image_to_pixels(image).to(scorer.encoder.model.device)
    maps = patch_maps(scorer.encoder, pixels, [text[start:end] for start, end in spans]).cpu()
    return _explained(image, text, spans, maps, "patch similarity", scorer)


def _check_words(text: str, spans: Sequence[tuple[int, int]]) -> None:
    if not spans:
        raise SettingsError(f"prompt must hold a word, got '{text}'", field="prompt")


def words_read(text: str, tower: TextEncoder) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Returns the words of a text that a text encoder reads, by where they stand, and the places of their tokens."""
    tokens = tower.tokenizer(text, max_length=tower.max_length, truncation=True, return_offsets_mapping=True)
    found = []
    for start, end in word_spans(text):
        places = [k for k, (a, b) in enumerate(tokens.offset_mapping) if a < b and a < end and b > start]
        found += [((start, end), places)] if places else []
    return [span for span, _ in found], [places for _, places in found]


def _explained(
    image: Image.Image, text: str, spans: Sequence[tuple[int, int]], maps: Tensor, source: Source, scorer: Scorer | None
) -> Explanation:
    words = tuple(text[start:end] for start, end in spans)
    if scorer is None:
        return Explanation(image, text, words, maps, source)
    encoder = scorer.encoder
    [(_, features)] = iter_image_features(encoder, [(None, image)])
    similarity = float(encoder.text_features([text])[0] @ features)
    return Explanation(
        image, text, words, maps, source, similarity, tuple(similarity_drops(encoder, features, text, spans))
    )
