"""Checks with CLIP whether an image shows what its prompt names: each object, its colour, its count.

The prompt is split into phrases. To decide whether a phrase is in the image, its cosine similarity is compared with
the similarities of many other phrases to the same image, which are the reference for an object that is absent. A
colour or count is compared with the other colours or counts. Negations are not checked: CLIP does not understand
`no fox`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp
from typing import Literal

import torch
from torch import Tensor

from clipgen.clip.classify import label_features, probabilities
from clipgen.clip.score import Scorer

Kind = Literal["thing", "colour", "count"]
THRESHOLD = 0.5
# z-scores of phrases that are in the image and of phrases that are not (means), and the standard deviation of both,
# measured with storybook's CLIP on scenes it was not trained on: `python -m clipgen.train.phrase_scores`.
PRESENT, ABSENT, SPREAD = 2.77, 0.14, 1.17
MAX_TEXT_COSINE = 0.8  # a phrase closer than this to the one that is checked means the same and is left out
MIN_PHRASES = 30  # phrases from which a standard deviation can be estimated

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
NUMBERS = ("one", "two", "three", "four")
KINDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (("colour", COLOURS), ("count", NUMBERS))
SEPARATORS = (
    "in front of", "to the left of", "to the right of", "on top of", "next to", "left of", "right of", "and", "or",
    "with", "without", "in", "on", "at", "by", "near", "under", "above", "below", "behind", "beside", "between", "over",
    "inside", "outside", "against", "among", "during", "from", "through", "into", "onto",
)  # fmt: skip
SEPARATOR = re.compile(rf"[,.;:!?()]+|\b(?:{'|'.join(SEPARATORS)})\b", re.IGNORECASE)
ARTICLE = re.compile(r"^(?:a|an|the|some)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class PhraseCheck:
    """The result of one check: a phrase of the prompt, the property that was checked, its probability."""

    phrase: str
    kind: Kind
    probability: float

    @property
    def holds(self) -> bool:
        """Whether the image probably shows it."""
        return self.probability >= THRESHOLD

    @property
    def subject(self) -> str:
        """The phrase without its article, or its colour or number alone."""
        words = dict(KINDS).get(self.kind)
        return ARTICLE.sub("", self.phrase) if words is None else _pattern(words).findall(self.phrase)[0]


def split_phrases(text: str) -> list[str]:
    """Returns the distinct phrases of a prompt: `a red fox and snow` -> `a red fox`, `snow`."""
    parts = (" ".join(part.split()) for part in SEPARATOR.split(text))
    return list(dict.fromkeys(part for part in parts if re.search(r"\w", part)))


class PromptChecker:
    """Checks phrases against images with one CLIP model."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @cached_property
    def reference_features(self) -> Tensor:
        """Unit vectors [N, D] of the phrases of all calibration captions."""
        phrases = dict.fromkeys(phrase for caption in self.scorer.captions for phrase in split_phrases(caption))
        return self.scorer.encoder.text_features(list(phrases))

    @torch.no_grad()
    def image_features(self, pixels: Tensor) -> Tensor:
        """Returns the unit vector [D] of an image [3, H, W] in [0, 1]."""
        return self.scorer.encoder.image_features(pixels[None])[0]

    @torch.no_grad()
    def check(self, image: Tensor, phrases: Sequence[str]) -> tuple[PhraseCheck, ...]:
        """Returns the checks of each phrase, for an image's unit vector [D]."""
        return tuple(check for phrase in phrases for check in self._check_phrase(image, phrase))

    def _check_phrase(self, image: Tensor, phrase: str) -> list[PhraseCheck]:
        checks = [PhraseCheck(phrase, "thing", self._presence(image, phrase))]
        for kind, words in KINDS:
            if alternatives := _alternatives(phrase, words):
                labels = label_features(self.scorer.encoder, alternatives)
                probability = probabilities(self.scorer.encoder, image[None], labels)[0, 0]
                checks.append(PhraseCheck(phrase, kind, float(probability)))
        return checks

    def _presence(self, image: Tensor, phrase: str) -> float:
        """Returns the probability that a phrase is in the image, 0.5 if there is nothing to compare it with.

        z-scores are assumed to be normal with mean PRESENT or ABSENT. With equal priors, Bayes' rule gives a sigmoid.
        """
        z = self.z_score(image, phrase)
        if z is None:
            return THRESHOLD
        return 1 / (1 + exp(-(PRESENT - ABSENT) / SPREAD**2 * (z - (PRESENT + ABSENT) / 2)))

    @torch.no_grad()
    def z_score(self, image: Tensor, phrase: str) -> float | None:
        """Returns (phrase cosine - mean of the reference cosines) / their standard deviation, for a vector [D].

        None with fewer than MIN_PHRASES reference phrases.
        """
        text = self.scorer.encoder.text_features([phrase])[0]
        reference = self.reference_features[self.reference_features @ text <= MAX_TEXT_COSINE] @ image
        if len(reference) < MIN_PHRASES:
            return None
        return float((text @ image - reference.mean()) / reference.std())


def _alternatives(phrase: str, words: Sequence[str]) -> list[str]:
    """Returns the phrase, then the phrase with its word replaced by each of the others; [] unless it has just one."""
    pattern = _pattern(words)
    matches = pattern.findall(phrase)
    if len(matches) != 1:
        return []
    return [phrase, *(pattern.sub(word, phrase) for word in words if word != matches[0].lower())]


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)
