"""A picture examined by its own prompt: is each thing there, in its colour, as many as asked?

The parts of the prompt become zero-shot questions. Whether a thing is there is a pair, the thing and anything else: its
cosine against those of many other phrases to the same picture, which is what a thing that is not there looks like.
Colours and numbers are told from the other colours and numbers. CLIP does not understand `no fox`, so nobody asks that.
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
HOLDS = 0.5
# How far phrases stand out that are there and that are not, and the deviation of both, with storybook's CLIP on scenes
# it never saw: `python -m clipgen.train.phrase_scores`.
PRESENT, ABSENT, SPREAD = 2.77, 0.14, 1.17
TOO_CLOSE = 0.8  # text cosine: such a phrase says what is asked
FEWEST = 30  # other phrases, from which their spread can be told

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
NUMBERS = ("one", "two", "three", "four")
KINDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (("colour", COLOURS), ("count", NUMBERS))
JOINTS = (
    "in front of", "to the left of", "to the right of", "on top of", "next to", "left of", "right of", "and", "or",
    "with", "without", "in", "on", "at", "by", "near", "under", "above", "below", "behind", "beside", "between", "over",
    "inside", "outside", "against", "among", "during", "from", "through", "into", "onto",
)  # fmt: skip
JOINT = re.compile(rf"[,.;:!?()]+|\b(?:{'|'.join(JOINTS)})\b", re.IGNORECASE)
ARTICLE = re.compile(r"^(?:a|an|the|some)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class PhraseCheck:
    """One question to a picture: the part of the prompt it comes from, what it asks, how likely it is so."""

    phrase: str
    kind: Kind
    probability: float

    @property
    def holds(self) -> bool:
        """Whether it is more likely so than not."""
        return self.probability >= HOLDS

    @property
    def subject(self) -> str:
        """What is asked about: the phrase without its article, or its colour or number alone."""
        words = dict(KINDS).get(self.kind)
        return ARTICLE.sub("", self.phrase) if words is None else _pattern(words).findall(self.phrase)[0]


def split_phrases(text: str) -> list[str]:
    """Returns the parts of a prompt between its joints, each once: `a red fox and snow` -> `a red fox`, `snow`."""
    parts = (" ".join(part.split()) for part in JOINT.split(text))
    return list(dict.fromkeys(part for part in parts if re.search(r"\w", part)))


class PromptChecker:
    """Asks pictures about phrases, by one CLIP."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @cached_property
    def others(self) -> Tensor:
        """The unit vectors [N, D] of the phrases of the calibration captions: what may be there or not."""
        found = dict.fromkeys(phrase for caption in self.scorer.captions for phrase in split_phrases(caption))
        return self.scorer.encoder.text_features(list(found))

    @torch.no_grad()
    def image_features(self, pixels: Tensor) -> Tensor:
        """Returns the unit vector [D] of a picture [3, H, W] in [0, 1]."""
        return self.scorer.encoder.image_features(pixels[None])[0]

    @torch.no_grad()
    def check(self, image: Tensor, phrases: Sequence[str]) -> tuple[PhraseCheck, ...]:
        """Returns the questions that phrases hold and their answers for a picture's unit vector [D]."""
        return tuple(check for phrase in phrases for check in self._about(image, phrase))

    def _about(self, image: Tensor, phrase: str) -> list[PhraseCheck]:
        checks = [PhraseCheck(phrase, "thing", self._is_there(image, phrase))]
        for kind, words in KINDS:
            if choices := _variants(phrase, words):
                labels = label_features(self.scorer.encoder, choices)
                checks += [
                    PhraseCheck(phrase, kind, float(probabilities(self.scorer.encoder, image[None], labels)[0, 0]))
                ]
        return checks

    def _is_there(self, image: Tensor, phrase: str) -> float:
        """Returns the chance that a phrase is true, as likely as not beforehand; 1/2 where nothing can be compared.

        How far it stands out is normal about PRESENT or ABSENT: by Bayes' rule that gives a sigmoid.
        """
        far = self.z_score(image, phrase)
        if far is None:
            return HOLDS
        return 1 / (1 + exp(-(PRESENT - ABSENT) / SPREAD**2 * (far - (PRESENT + ABSENT) / 2)))

    @torch.no_grad()
    def z_score(self, image: Tensor, phrase: str) -> float | None:
        """Returns a phrase's cosine to a picture's vector [D], in the other phrases' deviations from their mean.

        None where there are too few others.
        """
        text = self.scorer.encoder.text_features([phrase])[0]
        others = self.others[self.others @ text <= TOO_CLOSE] @ image
        return None if len(others) < FEWEST else float((text @ image - others.mean()) / others.std())


def _variants(phrase: str, words: Sequence[str]) -> list[str]:
    """Returns a phrase that holds one of the words, itself first, with each of the others in its place; else []."""
    pattern = _pattern(words)
    own = pattern.findall(phrase)
    if len(own) != 1:
        return []
    return [phrase, *(pattern.sub(word, phrase) for word in words if word != own[0].lower())]


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)
