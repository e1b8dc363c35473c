"""Questions that CLIP answers about an image: does it fit its prompt better than prompts that are wrong in one detail?

Each question changes one detail of the prompt: the name of a thing, a count, a colour, the place, the style (another
one or none), the relation; one thing fewer, one thing more. It is answered rightly if the prompt has the highest
similarity of all. An image passes strictly if all questions are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from clipgen.bench.quality.edits import SIDES, with_thing
from clipgen.bench.quality.scene_prompts import CATEGORIES, ScenePrompt
from clipgen.clip.encoder import ClipEncoder
from clipgen.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.world.scene import Scene
from clipgen.world.truth import colour_of

OTHER_NAMES = 15  # wrong names per thing
EXTRA_NAMES = 5  # wrong prompts with one more thing


def wrong_prompts(prompt: ScenePrompt, names: Sequence[str]) -> dict[str, list[str]]:
    """Returns the wrong prompts of each question; `names` are those of all concepts."""
    rng = random.Random(prompt.id)
    texts: dict[str, list[str]] = {}
    for question, scene in _wrong_scenes(prompt, names, rng):
        text = prompt.text(scene)
        if text != prompt.text():
            texts.setdefault(question, []).append(text)
    return texts


def _wrong_scenes(prompt: ScenePrompt, names: Sequence[str], rng: random.Random) -> Iterator[tuple[str, Scene]]:
    scene = prompt.asked
    present = {thing.concept for thing in scene.things}
    absent = [name for name in names if name not in present]
    for k, thing in enumerate(scene.things):
        for name in rng.sample(absent, min(OTHER_NAMES, len(absent))):
            yield "thing", with_thing(scene, k, concept=name)
        for count in {1, 2, 3, 4} - {thing.count}:
            yield "count", with_thing(scene, k, count=count)
        for colour in COLOURS if thing.colour else ():
            yield "colour", with_thing(scene, k, colour=colour)
        if len(scene.things) > 1:
            yield "missing thing", replace(scene, things=(thing,), relation="")
    yield from _swapped_colours(scene)
    if CATEGORIES[prompt.category].place:
        yield from (("place", replace(scene, place=place)) for place in PLACES)
    if scene.style != STYLES[0]:
        yield from (("style", replace(scene, style=style)) for style in STYLES)
    if scene.relation:
        yield from (("relation", replace(scene, relation=relation)) for relation in sorted(SIDES))
    else:
        for name in rng.sample(absent, min(EXTRA_NAMES, len(absent))):
            extra = replace(scene.things[0], concept=name, count=1, colour="", drawing=concepts()[name].drawings[0])
            yield "extra thing", replace(scene, things=(*scene.things, extra))


def _swapped_colours(scene: Scene) -> Iterator[tuple[str, Scene]]:
    """Yields the scene with the colours of its two things exchanged, if one is recoloured and they differ."""
    if len(scene.things) == 2 and any(thing.colour for thing in scene.things):
        a, b = scene.things
        if colour_of(a) == colour_of(b):
            return
        yield "colour", replace(scene, things=(replace(a, colour=b.colour), replace(b, colour=a.colour)))


class Questions:
    """The questions about one prompt, with the text features of one CLIP.

    Attributes:
        right: The text features [D] of the prompt.
        wrong: The text features [N, D] of the wrong prompts of each question.
    """

    def __init__(self, encoder: ClipEncoder, prompt: str, wrong: Mapping[str, Sequence[str]]) -> None:
        features = encoder.text_features([prompt, *(text for texts in wrong.values() for text in texts)])
        self.right = features[0]
        parts = features[1:].split([len(texts) for texts in wrong.values()])
        self.wrong = dict(zip(wrong, parts, strict=True))

    def answers(self, image_features: Tensor) -> dict[str, bool]:
        """Returns for each question whether an image with features [D] fits the prompt best."""
        similarity = self.right @ image_features
        return {name: bool(similarity > (wrong @ image_features).max()) for name, wrong in self.wrong.items()}


@torch.no_grad()
def image_features(encoder: ClipEncoder, pixels: Tensor) -> Tensor:
    """Returns the unit-length features [D] of one image [3, H, W] in [0, 1]."""
    return encoder.image_features(pixels[None])[0]
