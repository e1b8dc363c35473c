"""Scene -> captions: true sentences in free word order, with details dropped at random so that short prompts work."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from clipgen.world.concepts import concepts
from clipgen.world.scene import OPPOSITE, Scene, Thing

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
Parts = dict[
    str, str
]  # phrases of a sentence: things ("a fox"), place ("in snow"), style ("watercolour"); empty if unsaid
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


def caption(scene: Scene, rng: random.Random) -> str:
    """Draws one caption of a scene; it is always true, and may leave out colours, places, styles and relations.

    Each part draws from numbers of its own, so that a scene with one thing changed gets the same wording otherwise.
    """
    of_things, of_place, of_style, of_whole = (random.Random(rng.random()) for _ in range(4))
    said = [_phrase(of_things, thing, article=True) for thing in scene.things]
    bare = [_phrase(of_things, thing, article=False) for thing in scene.things]
    place = _place(of_place, scene) if of_place.random() < 0.85 else ""
    parts = {
        "things": _joined(of_whole, scene, said),
        "several": "yes" if scene.things[0].count > 1 else "",
        "bare": " and ".join(bare),
        "place": place,
        "tag": TAGS.get(scene.place, f"{scene.place} background") if place else "",
        "style": _style(of_style, scene),
    }
    return _tidy(of_whole.choice(TEMPLATES)(parts))


def captions(scene: Scene, count: int) -> list[str]:
    """Returns `count` captions of a scene, the same ones each time."""
    rng = random.Random(scene.seed ^ 0xCA9710)
    return [caption(scene, rng) for _ in range(count)]


def indefinite(word: str) -> str:
    """Puts a or an before a phrase."""
    vowel = word.startswith("hour") or (word[0] in "aeiou" and not word.startswith(("unicorn", "ufo", "one", "euro")))
    return ("an " if vowel else "a ") + word


def _phrase(rng: random.Random, thing: Thing, *, article: bool) -> str:
    concept = concepts()[thing.concept]
    words = [word for word in (thing.size, thing.colour) if word]
    if thing.count > 1:
        words.append(concept.plural)
        number = rng.choice(NUMBERS[thing.count])
        return " ".join([number, *words])
    name = rng.choice(concept.synonyms) if concept.synonyms and rng.random() < 0.15 else concept.name
    phrase = " ".join([*words, name])
    if not article or (concept.name == concept.plural and name.endswith("s") and " of " not in name):
        return phrase
    if concept.plural.endswith(f" of {name}"):  # bread, jeans: a mass or a pair takes no article
        return phrase
    if name == concept.plural:  # fish, deer, sushi: one of them still takes an article where it can be counted
        return phrase if name in ("sushi", "broccoli") else indefinite(phrase)
    if not words and name in ("sun", "moon", "full moon", "earth", "planet earth"):
        return "the " + phrase
    return indefinite(phrase)


def _joined(rng: random.Random, scene: Scene, said: list[str]) -> str:
    if len(said) == 1:
        return said[0]
    if scene.relation and rng.random() < 0.6:
        if scene.relation in OPPOSITE and scene.relation not in ("on top of",) and rng.random() < 0.3:
            return f"{said[1]} {rng.choice(RELATION_PHRASES[OPPOSITE[scene.relation]])} {said[0]}"
        return f"{said[0]} {rng.choice(RELATION_PHRASES[scene.relation])} {said[1]}"
    said = rng.sample(said, len(said))
    return ", ".join(said[:-1]) + " and " + said[-1]


def _place(rng: random.Random, scene: Scene) -> str:
    if scene.is_plain:
        return f"on {indefinite(scene.place)} background"
    phrase = rng.choice(PLACE_PHRASES[scene.place])
    time = rng.choice(TIME_PHRASES[scene.time]) if rng.random() < 0.8 else ""
    return f"{phrase} {time}".strip()


def _style(rng: random.Random, scene: Scene) -> str:
    said = 0.92 if scene.style != "picture book" else 0.06
    return rng.choice(STYLE_PHRASES[scene.style]) if rng.random() < said else ""


def _tidy(text: str) -> str:
    """Removes what empty parts left behind: double spaces, stray commas."""
    pieces = [" ".join(piece.split()) for piece in text.split(",")]
    return ", ".join(piece for piece in pieces if piece)


def plain_caption(scene: Scene) -> str:
    """Returns the one caption that names all there is in the shortest words: "a red fox in snow at night, neon"."""
    first = _First()
    said = [_phrase(first, thing, article=True) for thing in scene.things]
    relation = RELATION_PHRASES[scene.relation][0] if scene.relation else ""
    things = (
        f"{said[0]} {relation} {said[1]}" if relation else ", ".join(said[:-1]) + " and " * (len(said) > 1) + said[-1]
    )
    place = f"on {indefinite(scene.place)} background" if scene.is_plain else PLACE_PHRASES[scene.place][0]
    style = STYLE_PHRASES[scene.style][0] if scene.style != "picture book" else ""
    return _tidy(f"{things} {place} {TIME_PHRASES[scene.time][0]}, {style}")


class _First(random.Random):
    """Draws no numbers: the first of what there is, and nothing that is said but now and then."""

    def random(self) -> float:
        return 1.0

    def choice(self, seq: Any) -> Any:
        return seq[0]
