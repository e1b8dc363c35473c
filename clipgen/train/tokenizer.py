"""The tokenizer of storybook: CLIP's byte-level BPE, trained on captions of the world."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator

from tokenizers import pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from clipgen.world.concepts import concepts
from clipgen.world.grammar import caption
from clipgen.world.scene import sample_scene

LENGTH = 32
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def train_tokenizer(texts: Iterable[str], size: int = 4096, length: int = LENGTH) -> CLIPTokenizer:
    """Trains a CLIP tokenizer of at most `size` entries to which no text is unknown.

    The trainer's vocabulary lacks most entries that end a word. It is rebuilt from the 256 bytes, the same bytes at the
    end of a word, the result of each merge, and the two special tokens.
    """
    backend = CLIPTokenizer().backend_tokenizer
    backend.model = BPE(end_of_word_suffix=WORD_END, continuing_subword_prefix="")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = size - 2 * len(alphabet) - 2
    trainer = BpeTrainer(
        vocab_size=entries + 2 * len(alphabet), initial_alphabet=alphabet, end_of_word_suffix=WORD_END,
        special_tokens=[], show_progress=False,
    )  # fmt: skip
    backend.train_from_iterator(texts, trainer)
    merges = _merges(backend.to_str())[:entries]
    names = [*alphabet, *(char + WORD_END for char in alphabet), *dict.fromkeys(a + b for a, b in merges), START, END]
    vocab = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)


def _merges(serialised: str) -> list[tuple[str, str]]:
    merges = json.loads(serialised)["model"]["merges"]
    return [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in merges]


def corpus(count: int, seed: int = 0) -> Iterator[str]:
    """Yields captions of random scenes, then every name of the vocabulary three times."""
    rng = random.Random(seed)
    for k in range(count):
        yield caption(sample_scene(seed + k), rng)
    for concept in concepts().values():
        yield from (concept.name, concept.plural, *concept.synonyms) * 3
