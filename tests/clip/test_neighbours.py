"""The likeliest sentence of known neighbours."""

from __future__ import annotations

from itertools import product

import torch

from clipgen.clip.neighbours import likeliest, neighbours

START, END, VOCABULARY = 0, 1, 9
KNOWN = torch.tensor([[0, 3, 4, 5, 1, 2], [0, 3, 6, 1, 2, 2]])


def test_what_is_likeliest_alone_gives_way_to_what_may_follow() -> None:
    logits = torch.full((2, 6, VOCABULARY), -9.0)
    for row, likely in enumerate([[0, 3, 6, 5, 1, 7], [0, 3, 6, 8, 8, 8]]):
        logits[row, range(6), likely] = 0.0
    logits[0, 2, 4] = logits[1, 3, 1] = -3.0
    found = likeliest(logits, neighbours(KNOWN, END, VOCABULARY), START, END)
    assert found.tolist() == [[0, 3, 4, 5, 1, 1], [0, 3, 6, 1, 1, 1]]


def test_it_is_the_best_of_all_that_may_be_said() -> None:
    follows = neighbours(torch.tensor([[0, 3, 4, 1], [0, 4, 3, 1], [0, 4, 4, 1]]), END, VOCABULARY)
    logits = torch.randn(20, 6, VOCABULARY, generator=torch.Generator().manual_seed(0))
    said = logits.log_softmax(dim=-1)
    may = {(0, 3), (0, 4), (3, 4), (4, 3), (4, 4), (3, 1), (4, 1)}
    sentences = [
        (START, *words, END)
        for length in range(1, 5)
        for words in product((3, 4), repeat=length)
        if may.issuperset(zip((START, *words), (*words, END), strict=True))
    ]
    for row, ids in zip(said, likeliest(logits, follows, START, END), strict=True):
        best = max(sentences, key=lambda words: sum(row[i, word].item() for i, word in enumerate(words) if i))
        assert ids.tolist() == [*best, *[END] * (6 - len(best))]
