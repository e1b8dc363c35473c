"""What no training picture shows is not thereby false: alternatives that are held out count for nothing in a loss.

A world where no fox stands on a beach teaches that whatever stands on a beach is no fox, and a writer then finds any
other name for it. The likelihood of what a truncated sampler draws is that of the whole world, renormed over what it
keeps (truncated maximum likelihood, Cohen 1959): what would realise a cell held out leaves the sum that a loss is
normed by. No such cell is shown for that, in pictures or in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from clipgen.train.labels import label_index
from clipgen.train.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.train.world.grammar import NUMBERS, PLACE_PHRASES, RELATION_PHRASES, STYLE_PHRASES, plain_caption
from clipgen.train.world.holdout import held_out, pair
from clipgen.train.world.scene import ABOVE, BESIDE, Scene, Thing

Tokens = tuple[int, ...]
Choice = tuple[Tokens, bool]  # what could be said, and whether it is withheld
Place = tuple[int, int]  # of a token in a caption, and the token that counts for nothing there
ROLE_OF = {"left of": BESIDE, "right of": BESIDE, "above": ABOVE, "below": ABOVE, "on top of": ABOVE}
TURNED = ("right of", "below")  # these say the role of the second thing


@cache
def never_together() -> Tensor:
    """Returns which two labels are never shown of one thing or beside each other, bool [L, L]."""
    index, names = label_index(), list(concepts())
    cells = [(("thing", a), ("thing", b), pair(a, b)) for k, a in enumerate(names) for b in names[:k]]
    for name in names:
        thing = ("thing", name)
        cells += [(thing, ("colour", colour), ("colour", name, colour)) for colour in COLOURS]
        cells += [(thing, ("count", str(count)), ("count", name, str(count))) for count in NUMBERS]
        cells += [(thing, ("place", place), ("scene", name, place)) for place in PLACES]
        cells += [(thing, ("style", style), ("style", name, style)) for style in STYLES[1:]]
    rows, columns = torch.tensor([(index[one], index[other]) for one, other, cell in cells if held_out(*cell)]).T
    table = torch.zeros(len(index), len(index), dtype=torch.bool)
    table[rows, columns] = table[columns, rows] = True
    return table


def withheld(labels: Tensor) -> Tensor:
    """Returns which labels no picture shows beside those of [..., L]: bool [..., L], false of those it has."""
    return (labels @ never_together().to(labels)).bool() & (labels == 0)


class Unsaid:
    """Tells what the plain caption of a scene could say instead, token by token, of which no picture is shown."""

    def __init__(self, tokenizer: CLIPTokenizer, names: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.order = {name: label_index()["thing", name] for name in names}
        self.names = [
            {name: self._tokens(concepts()[name].plural if several else name) for name in names}
            for several in (False, True)
        ]
        self.numbers = {str(count): self._tokens(words[0]) for count, words in NUMBERS.items()}
        self.colours = {colour: self._tokens(colour) for colour in COLOURS}
        self.places = {place: self._tokens(phrases[0]) for place, phrases in PLACE_PHRASES.items()}
        self.relations = {kind: self._tokens(phrases[0]) for kind, phrases in RELATION_PHRASES.items()}
        self.styles = {style: self._tokens(f", {phrases[0]}") for style, phrases in STYLE_PHRASES.items()}

    def of(self, scenes: Sequence[Scene]) -> Tensor:
        """Returns the rows, places and tokens, int64 [3, K], of what is withheld in the captions of scenes."""
        found = [(row, *place) for row, scene in enumerate(scenes) for place in set(self._of_scene(scene))]
        return torch.tensor(found, dtype=torch.int64).reshape(-1, 3).T

    def _of_scene(self, scene: Scene) -> Iterator[Place]:
        ids, end = self._tokens(plain_caption(scene)), 0
        for k, thing in enumerate(scene.things):
            if k and scene.relation:
                yield from _barred(ids, end, self._choices(self.relations, _relations(scene)))
            said = self.names[thing.count > 1][thing.concept]
            start = next(i for i in range(end, len(ids)) if ids[i : i + len(said)] == said)
            names, colours = self._of_thing(scene, thing)
            coloured = start - bool(thing.colour)
            yield from _barred(ids, coloured, colours if thing.colour else colours + names)
            yield from _barred(ids, start, names if thing.colour else [])
            counted = coloured - bool(thing.size) - 1
            if counted >= end:  # else it has no article
                counts = values_withheld("count", thing.concept, tuple(self.numbers))
                yield from _barred(ids, counted, self._choices(self.numbers, counts))
            end = start + len(said)
        named = [thing.concept for thing in scene.things]
        places = [place for name in named for place in values_withheld("scene", name, PLACES)]
        styles = [style for name in named for style in values_withheld("style", name, STYLES[1:])]
        yield from _barred(ids, end, self._choices(self.places, places))
        end = ids.index(self.styles[scene.style][0], end) if scene.style != STYLES[0] else len(ids)
        yield from _barred(ids, end, self._choices(self.styles, styles))

    def _of_thing(self, scene: Scene, thing: Thing) -> tuple[list[Choice], list[Choice]]:
        """Returns the names and the colours that a caption could give a thing."""
        unseen = names_withheld(scene, thing)
        others = (name for name, place in self.order.items() if unseen[place])
        colours = values_withheld("colour", thing.concept, COLOURS)
        return self._choices(self.names[thing.count > 1], others), self._choices(self.colours, colours)

    @staticmethod
    def _choices(said: dict[str, Tokens], withheld: Iterable[str]) -> list[Choice]:
        unsaid = set(withheld)
        return [(tokens, what in unsaid) for what, tokens in said.items()]

    def _tokens(self, text: str) -> Tokens:
        """Returns the tokens of a text, without the start and the end."""
        return tuple(self.tokenizer(text).input_ids[1:-1])


def _barred(ids: Tokens, start: int, choices: Sequence[Choice]) -> Iterator[Place]:
    """Yields the tokens, and their places, by which a caption would turn from what it says to a choice withheld.

    A token by which it would turn to another choice as well is none of them.
    """
    place = start
    while choices and place <= len(ids):
        true = set(ids[place : place + 1])
        open_to = true | {tokens[0] for tokens, unsaid in choices if not unsaid}
        yield from ((place, token) for token in {tokens[0] for tokens, _ in choices} - open_to)
        choices = [(tokens[1:], unsaid) for tokens, unsaid in choices if tokens[0] in true and len(tokens) > 1]
        place += 1


def names_withheld(scene: Scene, thing: Thing) -> Tensor:
    """Returns which concepts no picture shows in a thing's stead, bool [names] in the order of the vocabulary."""
    around = [("count", str(thing.count)), ("place", scene.place), ("style", scene.style)]
    around += [("colour", thing.colour)] if thing.colour else []
    around += [("thing", other.concept) for other in scene.things if other is not thing]
    found = never_together()[[label_index()[label] for label in around], : len(concepts())].any(dim=0)
    for kind, a, b in scene.roles():
        if thing.concept in (a, b):
            found = found | _in_role(kind, b if thing.concept == a else a, thing.concept == a)
    found[label_index()["thing", thing.concept]] = False
    return found


def values_withheld(kind: str, name: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """Returns those of `values`, of one kind of cell, that no picture shows a concept with."""
    return tuple(value for value in values if held_out(kind, name, value))


@cache
def _in_role(kind: str, other: str, first: bool) -> Tensor:
    """Returns which concepts never stand so to another, as the first of the role or the second."""
    return torch.tensor([held_out("role", kind, *((x, other) if first else (other, x))) for x in concepts()])


def _relations(scene: Scene) -> Iterator[str]:
    """Yields the relations in which no picture shows the first two things of a scene."""
    a, b = (thing.concept for thing in scene.things[:2])
    for relation, role in ROLE_OF.items():
        if held_out("role", role, *((b, a) if relation in TURNED else (a, b))):
            yield relation
