"""Writes captions of scenes: true sentences in varied word order, with or without every detail.

Most captions leave details out at random, so that a model trained on them understands short prompts. Complete captions
name every detail.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from clipgen.world.concepts import Concept, concepts
from clipgen.world.scene import OPPOSITE, Scene, Thing

# In this and the following tables, a phrase that is listed twice is used twice as often
NUMBERS = {2: ("two", "two", "2"), 3: ("three", "three", "3"), 4: ("four", "four", "4")}
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "snow": ("in snow", "in the snow", "in snow", "on a snowy field"),
    "forest": ("in a forest", "in the forest", "in the woods"),
    "beach": ("on a beach", "on the beach", "at the beach", "by the sea"),
    "night sky": ("at night", "at night", "under the stars", "under a starry sky", "in the night"),
    "desert": ("in the desert", "in a desert"),
    "meadow": ("in a meadow", "on the grass", "in a green field"),
    "sunset": ("at sunset", "in the sunset", "before a sunset"),
    "under the sea": ("under the sea", "underwater", "in the ocean"),
    "outer space": ("in space", "in outer space", "among the stars in space"),
    "rain": ("in the rain", "on a rainy day", "in rain"),
    "mountains": ("in the mountains", "in front of mountains"),
    "city street": ("in the city", "in a city", "on a city street"),
    "room": ("in a room", "in the living room", "at home"),
    "table": ("on a table", "on the table", "on a wooden table"),
}
# Words for places in captions that are lists: "fox, snow, watercolour"
TAGS = {
    "snow": "snow", "forest": "forest", "beach": "beach", "night sky": "night", "desert": "desert",
    "meadow": "meadow", "sunset": "sunset", "under the sea": "ocean", "outer space": "space", "rain": "rain",
    "mountains": "mountains", "city street": "city", "room": "room", "table": "table",
}  # fmt: skip
TIME_PHRASES = {"day": ("",), "night": ("at night", "by night"), "sunset": ("at sunset", "in the evening light")}
STYLE_PHRASES: dict[str, tuple[str, ...]] = {
    "picture book": ("picture book", "picture book illustration"),
    "pixel art": ("pixel art", "pixel art"),
    "pencil sketch": ("pencil sketch", "pencil drawing"),
    "watercolour": ("watercolour", "watercolor"),
    "black and white": ("black and white", "monochrome"),
    "neon": ("neon", "neon style"),
}
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "next to": ("next to", "beside"),
    "on top of": ("on top of", "on"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}
# Names with the article "the", if no colour or size comes before them
DEFINITE = frozenset({
    "sun", "moon", "full moon", "earth", "planet earth", "world", "statue of liberty", "eiffel tower",
})  # fmt: skip
# Names without an article: mass nouns, proper names and plurals that no rule of `_takes_no_article` covers
NO_ARTICLE = frozenset({
    "sushi", "broccoli", "lightning", "maize", "sweetcorn", "corn on the cob", "ramen", "saturn", "dracula", "sherlock",
    "santa claus", "father christmas", "crossed swords",
})  # fmt: skip
SYNONYM_SHARE = 0.15  # how often a thing is called by one of its synonyms
Parts = dict[str, str]  # phrases of a caption by their key in TEMPLATES; an omitted phrase is an empty string
TEMPLATES: tuple[Callable[[Parts], str], ...] = (
    lambda p: f"{p['things']} {p['place']}, {p['style']}",
    lambda p: f"{p['things']} {p['place']}, {p['style']}",
    lambda p: f"{p['things']} {p['place']}, {p['style']}",
    lambda p: f"a picture of {p['things']} {p['place']}, {p['style']}",
    lambda p: f"an illustration of {p['things']} {p['place']}, {p['style']}",
    lambda p: f"{p['style']}, {p['things']} {p['place']}",
    lambda p: (
        f"{p['style']} of {p['things']} {p['place']}" if p["style"] else f"an image of {p['things']} {p['place']}"
    ),
    lambda p: f"{p['place']}, {p['things']}, {p['style']}",
    lambda p: f"{p['things']}, {p['place']}, {p['style']}",
    lambda p: f"{'there are' if p['several'] else 'there is'} {p['things']} {p['place']}, {p['style']}",
    lambda p: f"a scene with {p['things']} {p['place']}, {p['style']}",
    lambda p: f"a drawing of {p['things']}, {p['place']}, {p['style']}",
    lambda p: f"{p['bare']}, {p['tag']}, {p['style']}",
)
COMPLETE_TEMPLATES = TEMPLATES[:-1]  # the last one has neither the time nor the relation


def caption(scene: Scene, rng: random.Random, *, complete: bool = False) -> str:
    """Returns one random caption of a scene, which is always true of it.

    The things, the place, the style and the sentence each draw from their own random generator. Two scenes that differ
    in one detail therefore get the same wording for everything else if `rng` starts in the same state.

    Args:
        scene: The scene to describe.
        rng: Chooses the template, the synonyms and the details that are left out.
        complete: Whether every detail is named: place, time, colours, counts, sizes, relation and style. The time
            "day" has no words, and the default style "picture book" is named as rarely as in other captions. If False,
            the place, the time, the relation and the style are each left out at random.
    """
    things_rng, place_rng, style_rng, sentence_rng = (random.Random(rng.random()) for _ in range(4))
    phrases = [_thing_phrase(things_rng, thing, article=True) for thing in scene.things]
    bare = [_thing_phrase(things_rng, thing, article=False) for thing in scene.things]
    place = _place_phrase(place_rng, scene, complete) if place_rng.random() < 0.85 or complete else ""
    parts = {
        "things": _join_things(sentence_rng, scene, phrases, complete),
        "several": "yes" if scene.things[0].count > 1 else "",
        "bare": " and ".join(bare),
        "place": place,
        "tag": TAGS.get(scene.place, f"{scene.place} background") if place else "",
        "style": _style_phrase(style_rng, scene, complete),
    }
    template = sentence_rng.choice(COMPLETE_TEMPLATES if complete else TEMPLATES)
    return _remove_gaps(template(parts))


def captions(scene: Scene, count: int) -> list[str]:
    """Returns `count` random captions of a scene. The same scene always gets the same captions."""
    rng = random.Random(scene.seed ^ 0xCA9710)
    return [caption(scene, rng) for _ in range(count)]


def indefinite(phrase: str) -> str:
    """Returns a phrase with its indefinite article: "a fox", "an owl", "a unicorn"."""
    vowel = phrase.startswith("hour") or (
        phrase[0] in "aeiou" and not phrase.startswith(("unicorn", "ufo", "one", "euro", "ewe"))
    )
    return ("an " if vowel else "a ") + phrase


def name_phrase(name: str) -> str:
    """Returns the name of a concept with the article that captions use: "a fox", "the sun", "sushi"."""
    return _with_article(concepts()[name], name, name)


def _thing_phrase(rng: random.Random, thing: Thing, *, article: bool) -> str:
    """Returns a thing with its count or article, size and colour: "two big red foxes", "a small owl"."""
    concept = concepts()[thing.concept]
    adjectives = [word for word in (thing.size, thing.colour) if word]
    if thing.count > 1:
        number = rng.choice(NUMBERS[thing.count])
        return " ".join([number, *adjectives, concept.plural])
    name = rng.choice(concept.synonyms) if concept.synonyms and rng.random() < SYNONYM_SHARE else concept.name
    phrase = " ".join([*adjectives, name])
    return _with_article(concept, name, phrase) if article else phrase


def _with_article(concept: Concept, name: str, phrase: str) -> str:
    """Returns a phrase, the name of one thing with its adjectives, with the article that the name takes."""
    if _takes_no_article(concept, name):
        return phrase
    return f"the {phrase}" if name in DEFINITE and phrase == name else indefinite(phrase)


def _takes_no_article(concept: Concept, name: str) -> bool:
    """Returns whether one thing of this name has no article: mass nouns, plurals such as "glasses", proper names."""
    is_plural = concept.name == concept.plural and name.endswith("s") and " of " not in name
    is_mass = concept.plural.endswith(f" of {name}")  # "loaves of bread", "pairs of jeans"
    return is_plural or is_mass or name in NO_ARTICLE


def _join_things(rng: random.Random, scene: Scene, phrases: list[str], complete: bool) -> str:
    """Joins the phrases of all things by the relation of the scene, or as a list in random order."""
    if len(phrases) == 1:
        return phrases[0]
    if scene.relation and (rng.random() < 0.6 or complete):
        if scene.relation in OPPOSITE and scene.relation != "on top of" and rng.random() < 0.3:
            return f"{phrases[1]} {rng.choice(RELATION_PHRASES[OPPOSITE[scene.relation]])} {phrases[0]}"
        return f"{phrases[0]} {rng.choice(RELATION_PHRASES[scene.relation])} {phrases[1]}"
    return _list(rng.sample(phrases, len(phrases)))


def _list(phrases: list[str]) -> str:
    """Returns "a fox", "a fox and an owl" or "a fox, an owl and a cat"."""
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))


def _place_phrase(rng: random.Random, scene: Scene, complete: bool) -> str:
    """Returns the place with its time: "in the woods at night", "on a red background"."""
    if scene.is_plain:
        return f"on {indefinite(scene.place)} background"
    phrase = rng.choice(PLACE_PHRASES[scene.place])
    time = rng.choice(TIME_PHRASES[scene.time]) if rng.random() < 0.8 or complete else ""
    return f"{phrase} {time}".strip()


def _style_phrase(rng: random.Random, scene: Scene, complete: bool) -> str:
    """Returns the words of the style. The default style "picture book" is rarely named."""
    is_default = scene.style == "picture book"
    share = 0.06 if is_default else 1.0 if complete else 0.92
    return rng.choice(STYLE_PHRASES[scene.style]) if rng.random() < share else ""


def _remove_gaps(text: str) -> str:
    """Removes the double spaces and commas that empty parts left in a template."""
    pieces = [" ".join(piece.split()) for piece in text.split(",")]
    return ", ".join(piece for piece in pieces if piece)


def plain_caption(scene: Scene, *, place: bool = True) -> str:
    """Returns the one caption that names every detail in the shortest words: "a red fox in snow at night, neon".

    Without `place` it names neither the place nor the time.
    """
    first = _FirstChoice()
    phrases = [_thing_phrase(first, thing, article=True) for thing in scene.things]
    things = f" {RELATION_PHRASES[scene.relation][0]} ".join(phrases) if scene.relation else _list(phrases)
    where = f"on {indefinite(scene.place)} background" if scene.is_plain else PLACE_PHRASES[scene.place][0]
    when = TIME_PHRASES[scene.time][0]
    style = STYLE_PHRASES[scene.style][0] if scene.style != "picture book" else ""
    return _remove_gaps(f"{things} {where} {when}, {style}" if place else f"{things}, {style}")


class _FirstChoice(random.Random):
    """A random generator that always chooses the first item and never reaches a probability below 1."""

    def random(self) -> float:
        return 1.0

    def choice(self, seq: Any) -> Any:
        return seq[0]
