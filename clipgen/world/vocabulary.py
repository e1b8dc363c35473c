"""The vocabulary of a model that is trained on the world: which words it knows, and prompts in those words.

A model trained on captions of the world draws a word that no caption held as a meaningless shape. A `Vocabulary` finds
such words. It replaces a synonym, a misspelling or an emoji by the name that the captions use most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files

from clipgen.settings.settings import Note
from clipgen.world.concepts import COLOURS, SIZES, Concept, concepts, regular_plural
from clipgen.world.grammar import (
    NUMBERS,
    PLACE_PHRASES,
    RELATION_PHRASES,
    STYLE_PHRASES,
    TIME_PHRASES,
    indefinite,
)
from clipgen.world.parse import phrases

_STOP_WORDS = (
    "about above across after against all along also am among any around as at be been before being both but by can "
    "could did do does don each for from had has have he her here him his how i if in inside into is isn it its just "
    "may me more most my near no nor not of off on one only onto or other our out outside over she should single so "
    "some such than that their them then there these they this those through to too toward towards under until up upon "
    "us very was we were what when where which while who whose why will with within without would you your"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
CONTENT = frozenset({"thing", "things", "place", "tag", "time", "style", "colour"})  # kinds of phrases that show
LISTED = 6  # unknown words that a note lists
SHORTEST = 4  # letters of a word whose spelling is corrected
FOREIGN = 2  # unknown words of a prompt without any known one, which is then in another language
_EMOJI = "[\u2600-\u27bf\u2b00-\u2bff\U0001f1e6-\U0001faff]"
_LETTER = r"(?:[^\W_]|[\u0300-\u036f\u0900-\u0eff])"  # also combining accents and vowel signs
TOKEN = re.compile(
    rf"{_EMOJI}[\ufe0f\U0001f3fb-\U0001f3ff]*(?:\u200d{_EMOJI}[\ufe0f\U0001f3fb-\U0001f3ff]*)*|{_LETTER}+"
)
VARIATION = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")  # colour of an emoji's glyph and of its skin
INNER = re.compile(r"\s+|[-'’]")  # what may stand between two words of one phrase


@dataclass(frozen=True)
class Edit:
    """Characters `start` to `end` of a prompt that are replaced by `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Reading:
    """A prompt as a vocabulary reads it.

    `text` is the prompt with `edits` applied. `replaced` are (word of the prompt, known word), without changes of
    hyphens, spaces and articles. `unknown` are the words that stay and mean nothing to the model. `has_content` is
    False if the prompt names no thing, place, style or colour that the model knows.
    """

    text: str
    edits: tuple[Edit, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    unknown: tuple[str, ...] = ()
    has_content: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """The words of the captions of all concepts up to a tier (concepts.tsv)."""

    tier: int

    def read(self, text: str) -> Reading:
        """Returns how a model with this vocabulary reads a prompt without syntax; the last prompts are cached."""
        return _read(self.tier, text)

    def notes(self, text: str, model: str, field: str = "prompt") -> tuple[Note, ...]:
        """Returns a note on the replaced words of a prompt and one on its unknown words, of the Settings field `field`.

        `model` is the model's name, as `clipgen models show` takes it.
        """
        reading = self.read(text)
        notes = [Note("word-replaced", field, _replaced_line(reading, field))] if reading.replaced else []
        if reading.unknown:
            line = f"{_unknown_line(reading, model, field)} It knows {len(self.names):,} things: "
            notes.append(Note("word-unknown", field, f"{line}clipgen models show {model} --words"))
        return tuple(notes)

    @property
    def names(self) -> list[str]:
        """The names of the concepts, in the order of the table."""
        return [concept.name for concept in _concepts(self.tier)]

    def to_dict(self) -> dict[str, dict[str, list[str]]]:
        """Returns the words by kind: things, places, times, colours, styles, counts, sizes and relations.

        Each kind maps a name to the other words for it.
        """
        tables = {"places": PLACE_PHRASES, "times": TIME_PHRASES, "styles": STYLE_PHRASES}
        return {
            "things": {name: list(concepts()[name].synonyms) for name in sorted(self.names)},
            **{kind: _others(table) for kind, table in tables.items()},
            "colours": {colour: [] for colour in COLOURS},
            "counts": {words[0]: sorted({*words[1:]} - {words[0]}) for words in NUMBERS.values()},
            "sizes": {size: [] for size in SIZES},
            "relations": _others(RELATION_PHRASES),
        }


VOCABULARIES = {"storybook": Vocabulary(2), "storybook-large": Vocabulary(3)}  # by the name in a model's clipgen.json


def vocabulary_name(tier: int) -> str:
    """Returns the name under which a model declares the vocabulary of a tier, 2 or 3."""
    return next(name for name, vocabulary in VOCABULARIES.items() if vocabulary.tier == tier)


def _others(table: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Returns the phrases of each name without repetitions, empty phrases and the name itself."""
    return {name: [word for word in dict.fromkeys(words) if word not in ("", name)] for name, words in table.items()}


@dataclass(frozen=True)
class _Word:
    """One word of a prompt: where it stands, its lower-case spelling, and that spelling corrected.

    `follows` is True if only a space, a hyphen or an apostrophe separates it from the word before.
    """

    start: int
    end: int
    typed: str
    spelling: str
    follows: bool


@dataclass(frozen=True)
class _Table:
    """The phrases of a tier in normal form (see `_normal`).

    `known` maps each phrase with content to what the prompt should say, `fillers` are single words without content,
    `untrained` the phrases that name concepts of higher tiers. `longest` is the number of words of the longest phrase.
    """

    known: dict[str, str]
    fillers: frozenset[str]
    untrained: frozenset[str]
    longest: int


def _concepts(tier: int) -> list[Concept]:
    return [concept for concept in concepts().values() if concept.tier <= tier]


def _normal(phrase: str) -> str:
    """Returns a phrase in lower case, its words separated by one space, without hyphens and emoji variations."""
    return " ".join(VARIATION.sub("", token) for token in TOKEN.findall(phrase.lower()))


@cache
def _table(tier: int) -> _Table:
    """Returns the phrases of a tier, made from the phrases of the grammar (parse.py) and the plurals of synonyms."""
    trained = _concepts(tier)
    others = {phrase: {kind for kind, _ in meanings} - {"thing", "things"} for phrase, meanings in phrases().items()}
    known = {_normal(phrase): phrase for phrase, kinds in others.items() if kinds & CONTENT}
    known |= {_normal(word): word for concept in trained for word in (concept.name, concept.plural)}
    for word, name in _variants(trained):
        if not _is_modified(word, known):
            known.setdefault(_normal(word), name)
    every = {_normal(word) for concept in concepts().values() for word in _all_words(concept)}
    untrained = {phrase for phrase in every - known.keys() if not all(word in known for word in phrase.split())}
    parts = {word for phrase, kinds in others.items() if kinds for word in _normal(phrase).split()}
    longest = max(len(phrase.split()) for phrase in (*known, *untrained))
    return _Table(known, frozenset(parts | STOP_WORDS), frozenset(untrained), longest)


def _variants(trained: Iterable[Concept]) -> Iterator[tuple[str, str]]:
    """Yields the other words for each concept, with the name or plural that replaces them; drawings are emoji."""
    for concept in trained:
        for word in (*concept.synonyms, *concept.drawings):
            yield word, concept.name
        for word in (concept.name, *concept.synonyms):
            is_regular = not word.endswith("s") or concept.plural != word == concept.name
            if is_regular and " of " not in word:
                yield regular_plural(word), concept.plural


def _all_words(concept: Concept) -> Iterator[str]:
    yield from (concept.name, concept.plural)
    yield from (word for word, _ in _variants([concept]))


def _is_modified(phrase: str, known: dict[str, str]) -> bool:
    """Returns whether a phrase is a colour or size and a known word: "red fox" needs no other name."""
    first, _, rest = phrase.partition(" ")
    return first in {*COLOURS, *SIZES} and _normal(rest) in known


@lru_cache(1024)
def _read(tier: int, text: str) -> Reading:
    """Reads a prompt from left to right, the longest phrase first."""
    table, words = _table(tier), _words(tier, text)
    edits: list[Edit] = []
    replaced: list[tuple[str, str]] = []
    unknown: list[str] = []
    has_content, at = False, 0
    while at < len(words):
        length, target = _match(table, words, at)
        phrase = words[at : at + length]
        typed = text[phrase[0].start : phrase[-1].end]
        if target is None:
            unknown.append(typed)
        elif target and target != typed.lower():
            edits += [*_article(text, words[at - 1 : at], phrase[0], target), _edit(text, phrase, target)]
            replaced += _replaced(phrase, typed, target)
        has_content |= bool(target) and " ".join(word.spelling for word in phrase) in table.known
        at += length
    return Reading(
        _apply(text, edits), tuple(edits), tuple(dict.fromkeys(replaced)), tuple(dict.fromkeys(unknown)), has_content
    )


def _match(table: _Table, words: Sequence[_Word], at: int) -> tuple[int, str | None]:
    """Returns how many words the phrase at a word has, and the text to use for it.

    The text is empty if the phrase stays as it is, None if it is unknown.
    """
    most = 1
    while most < table.longest and at + most < len(words) and words[at + most].follows:
        most += 1
    for length in range(most, 0, -1):
        phrase = " ".join(word.spelling for word in words[at : at + length])
        if phrase in table.known:
            return length, table.known[phrase]
        if phrase in table.untrained:
            return length, None
    word = words[at]
    if word.spelling in table.fillers:
        return 1, word.spelling if word.spelling != word.typed else ""
    is_ignored = word.typed.isdigit() or (len(word.typed) == 1 and word.typed.isascii())
    return 1, "" if is_ignored else None


def _words(tier: int, text: str) -> list[_Word]:
    """Splits a prompt into words and corrects their spelling, unless it is in another language."""
    words: list[_Word] = []
    end = 0
    for match in TOKEN.finditer(text):
        typed = _normal(match[0])
        follows = bool(words) and INNER.fullmatch(text, end, match.start()) is not None
        words.append(_Word(match.start(), match.end(), typed, _spelling(tier, typed), follows))
        end = match.end()
    return [replace(word, spelling=word.typed) for word in words] if _is_foreign(tier, words) else words


def _is_foreign(tier: int, words: Sequence[_Word]) -> bool:
    """Returns whether a prompt names nothing known in its own spelling, and holds several unknown words."""
    vocabulary, fillers = _spellings(tier)[0], _table(tier).fillers
    unknown = [word for word in words if word.spelling not in vocabulary and word.typed.isalpha()]
    return len(unknown) >= FOREIGN and not any(word.typed in vocabulary - fillers for word in words)


def _replaced(phrase: Sequence[_Word], typed: str, target: str) -> list[tuple[str, str]]:
    """Returns the words to report of a phrase as it was typed and the text for it: all, or those that were misspelled.

    Nothing is reported if only hyphens and spaces differ.
    """
    if " ".join(word.spelling for word in phrase) == _normal(target):
        return [(word.typed, word.spelling) for word in phrase if word.typed != word.spelling]
    return [(typed, target)]


def _edit(text: str, phrase: Sequence[_Word], target: str) -> Edit:
    """Returns the edit that puts a known word in place of a phrase, with the spaces that an emoji needs around it."""
    start, end = phrase[0].start, phrase[-1].end
    before = " " if start and text[start - 1].isalnum() else ""
    after = " " if end < len(text) and TOKEN.match(text, end) else ""
    return Edit(start, end, f"{before}{target}{after}")


def _article(text: str, before: Sequence[_Word], word: _Word, target: str) -> list[Edit]:
    """Returns the edit of an article before a replaced word: "an automobile" becomes "a car"."""
    if not before or before[0].typed not in ("a", "an") or not text[before[0].end : word.start].isspace():
        return []
    article = indefinite(target).split(" ")[0]
    typed = text[before[0].start : before[0].end]
    is_right = typed.lower() == article
    return [] if is_right else [Edit(before[0].start, before[0].end, typed[0] + article[1:])]


def _apply(text: str, edits: Sequence[Edit]) -> str:
    """Returns a text with edits, which are in the order of the text, applied."""
    for edit in reversed(edits):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


@lru_cache(4096)
def _spelling(tier: int, word: str) -> str:
    """Returns the one word of the vocabulary at Damerau-Levenshtein distance 1, else the word itself."""
    words, index = _spellings(tier)
    if word in words or word in _correct_words() or len(word) < SHORTEST or not word.isalpha():
        return word
    near = {other for key in (word, *_deletions(word)) for other in index.get(key, ()) if _is_one_edit(word, other)}
    return near.pop() if len(near) == 1 else word


@cache
def _correct_words() -> frozenset[str]:
    """Returns English words that are one edit away from a word of the captions and yet no misspelling of it."""
    _, *lines = files("clipgen.world").joinpath("correct_words.txt").read_text("utf-8").splitlines()
    return frozenset(" ".join(lines).split())


@cache
def _spellings(tier: int) -> tuple[frozenset[str], dict[str, list[str]]]:
    """Returns the words of a tier, and those that are no stop words by each of their spellings with a letter deleted.

    Words of higher tiers count: a misspelling of such a word is unknown too.
    """
    table = _table(tier)
    every = (*table.known, *table.untrained, *table.fillers)
    words = frozenset(word for phrase in every for word in phrase.split())
    index: dict[str, list[str]] = {}
    for word in words - STOP_WORDS:
        for key in {word, *_deletions(word)}:
            index.setdefault(key, []).append(word)
    return words, index


def _deletions(word: str) -> list[str]:
    """Returns the word with each of its letters deleted."""
    return [word[:k] + word[k + 1 :] for k in range(len(word))]


def _is_one_edit(a: str, b: str) -> bool:
    """Returns whether two different words differ by one insertion, deletion, substitution or transposition."""
    start = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    if len(a) == len(b):
        return a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
    return a[1:] == b or a == b[1:]


def _replaced_line(reading: Reading, field: str) -> str:
    verb = "drawn" if field == "prompt" else "read"
    (word, name), *rest = reading.replaced
    return f"'{word[:60]}' is {verb} as '{name}'" + "".join(f", '{other[:60]}' as '{known}'" for other, known in rest)


def _unknown_line(reading: Reading, model: str, field: str) -> str:
    """Returns the sentence on unknown words; of a prompt without a known word it says that nothing of it shows."""
    words = ", ".join(f"'{word[:60]}'" for word in reading.unknown[:LISTED])
    left = len(reading.unknown) - LISTED
    words += f" and {left:,} more" if left > 0 else ""
    if reading.has_content or field != "prompt":
        return f"{model} does not know {words}."
    return f"{model} knows no word of this prompt ({words}), so the picture will not show it."
