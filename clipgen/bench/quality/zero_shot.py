"""Zero-shot classification: the concept out of the whole vocabulary, the colour of a thing, the place of a scene."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from clipgen.bench.quality.metrics import Metric, share
from clipgen.bench.quality.scene_encoder import SceneEncoder
from clipgen.clip.classify import label_features
from clipgen.errors import SettingsError
from clipgen.gallery import find_images
from clipgen.image_file import open_image
from clipgen.world.concepts import COLOURS, PLACES, concepts
from clipgen.world.grammar import PLACE_PHRASES, indefinite
from clipgen.world.scene import Mix, Scene, held_out_cells
from clipgen.world.unseen import Split, unseen

TEMPLATES = ("{}", "a picture of {}", "an illustration of {}", "a drawing of {}", "a scene with {}")
TOP = 5
CODE_POINTS = re.compile(r"[0-9a-f]{4,6}(?:-[0-9a-f]{2,6})*", re.IGNORECASE)
VARIATION_SELECTOR = "\N{VARIATION SELECTOR-16}"  # requests the coloured emoji; file names of vendors omit it


def zero_shot(encoder: SceneEncoder, count: int, mix: Mix, split: Split) -> list[Metric]:
    """Classifies concepts, colours and places in `count` unseen scenes each."""
    one = replace(mix, kinds=(1.0, 0.0, 0.0), several=0.0, coloured=0.0, styled=0.0)
    labels = mix.names
    ensemble = concept_features(encoder, labels, TEMPLATES)
    single = concept_features(encoder, labels, TEMPLATES[:1])
    scenes = _first(count, one, split)
    images = encoder.scene_features(scenes)
    metrics = accuracy("things, in style", labels, _concepts(scenes), images @ ensemble.T, (0.80, 0.95))
    metrics += accuracy("things, one template", labels, _concepts(scenes), images @ single.T)[:1]
    styled, clutter = replace(one, styled=1.0), replace(mix, kinds=(0.0, 0.8, 0.2))
    for part, part_mix in (("things, other styles", styled), ("things, clutter", clutter)):
        scenes = _first(count, part_mix, split)
        similarities = encoder.scene_features(scenes) @ ensemble.T
        metrics += accuracy(part, labels, _concepts(scenes), similarities)[:2]
    coloured = _first(count, replace(one, coloured=1.0), split, "colour")
    placed = _first(count, one, split, "scene")
    return [
        *metrics,
        _attribute_accuracy(encoder, "colours", coloured, COLOURS, _colour_of, _with_colour),
        _attribute_accuracy(encoder, "places", placed, PLACES, _place_of, _in_place),
    ]


def other_drawings(encoder: SceneEncoder, folder: Path, mix: Mix) -> list[Metric]:
    """Classifies emoji of another vendor (Twemoji, OpenMoji) in files named by code points, such as `1f98a.png`.

    Raises SettingsError if no file shows a concept of the vocabulary, ImageFileError if a file cannot be read.
    """
    labels = mix.names
    names = {code_points(drawing): name for name in labels for drawing in concepts()[name].drawings}
    files = [(names[key], path) for path in find_images([folder]) if (key := _file_code_points(path)) in names]
    if not files:
        raise SettingsError(
            f"drawings '{folder}' holds no emoji of the world, named such as '1f98a.png'", field="drawings"
        )
    images = encoder.image_features(open_image(path) for _, path in files)
    similarities = images @ concept_features(encoder, labels, TEMPLATES).T
    return accuracy("things, another's drawings", labels, [(name,) for name, _ in files], similarities, (0.35, 0.60))


def code_points(emoji: str) -> str:
    """Returns the code points of an emoji as emoji files are named: `1f43b-200d-2744`."""
    return "-".join(f"{ord(char):x}" for char in emoji.replace(VARIATION_SELECTOR, ""))


def _file_code_points(path: Path) -> str:
    """Returns the code points in a file name, or an empty text if the name has another form."""
    name = path.stem.removeprefix("emoji_u").replace("_", "-").lower()
    return name.replace("-fe0f", "") if CODE_POINTS.fullmatch(name) else ""


def concept_features(encoder: SceneEncoder, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Returns the unit-length text features [C, D] of concepts, averaged over the templates."""
    return label_features(encoder.encoder, [indefinite(name) for name in names], templates)


def accuracy(
    part: str,
    labels: Sequence[str],
    correct: Sequence[tuple[str, ...]],
    similarities: Tensor,
    floors: tuple[float | None, float | None] = (None, None),
) -> list[Metric]:
    """Returns acc@1, acc@5 and the mean recall per class.

    `similarities` are [N, C]; `correct` are the labels that count as correct for each of the N images.
    """
    top = [[labels[k] for k in row] for row in similarities.topk(min(TOP, len(labels)), dim=1).indices.tolist()]
    first = [row[0] in names for row, names in zip(top, correct, strict=True)]
    among = [any(name in names for name in row) for row, names in zip(top, correct, strict=True)]
    chances = [mean(len(names) for names in correct) * k / len(labels) for k in (1, TOP)]
    recalls = [
        mean(hit for hit, names in zip(first, correct, strict=True) if name in names)
        for name in dict.fromkeys(name for names in correct for name in names)
    ]
    return [
        share(part, "acc@1", first, chance=chances[0], floor=floors[0]),
        share(part, "acc@5", among, chance=chances[1], floor=floors[1]),
        Metric(part, "recall per class", mean(recalls), len(recalls), chance=chances[0]),
    ]


def _attribute_accuracy(
    encoder: SceneEncoder,
    part: str,
    scenes: Sequence[Scene],
    values: Sequence[str],
    value_of: Callable[[Scene], str],
    describe: Callable[[Scene, str], str],
) -> Metric:
    """Returns how often the text with the scene's own value is the most similar of the texts with all values."""
    texts = [[describe(scene, value) for value in values] for scene in scenes]
    features = encoder.text_features([text for row in texts for text in row]).unflatten(0, (-1, len(values)))
    best = torch.einsum("nd,nvd->nv", encoder.scene_features(scenes), features).argmax(dim=1).tolist()
    hits = [row[k] == describe(scene, value_of(scene)) for row, k, scene in zip(texts, best, scenes, strict=True)]
    return share(part, "acc@1", hits, chance=1 / len(values))


def _colour_of(scene: Scene) -> str:
    return scene.things[0].colour


def _with_colour(scene: Scene, colour: str) -> str:
    return indefinite(f"{colour} {scene.things[0].concept}")


def _place_of(scene: Scene) -> str:
    return scene.place


def _in_place(scene: Scene, place: str) -> str:
    return f"{indefinite(scene.things[0].concept)} {PLACE_PHRASES[place][0]}"


def _first(count: int, mix: Mix, split: Split, cell_kind: str = "") -> list[Scene]:
    """Returns the first `count` unseen scenes; with `cell_kind`, only scenes with a held-out cell of that kind."""
    scenes = unseen(mix, split)
    if cell_kind:
        scenes = (scene for scene in scenes if any(cell[0] == cell_kind for cell in held_out_cells(scene)))
    return list(islice(scenes, count))


def _concepts(scenes: Sequence[Scene]) -> list[tuple[str, ...]]:
    return [tuple(thing.concept for thing in scene.things) for scene in scenes]
