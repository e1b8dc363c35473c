"""Zero-shot naming: one label of all things of the world, the colour of a thing, the place it is in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from clipgen.bench.quality.eye import Eye
from clipgen.bench.quality.figures import Figure, share
from clipgen.clip.classify import label_features
from clipgen.errors import SettingsError
from clipgen.gallery import find_images
from clipgen.image_file import open_image
from clipgen.world.concepts import COLOURS, PLACES, concepts
from clipgen.world.grammar import PLACE_PHRASES, indefinite
from clipgen.world.scene import Mix, Scene
from clipgen.world.unseen import Split, held_out_cells, unseen

TEMPLATES = ("{}", "a picture of {}", "an illustration of {}", "a drawing of {}", "a scene with {}")
TOP = 5
CODE_POINTS = re.compile(r"[0-9a-f]{4,6}(?:-[0-9a-f]{2,6})*", re.IGNORECASE)
VARIATION = "️"  # asks for the coloured drawing; vendors leave it out of file names


def zero_shot(eye: Eye, count: int, mix: Mix, split: Split) -> list[Figure]:
    """Names things, colours and places in `count` unseen scenes each."""
    one = replace(mix, kinds=(1.0, 0.0, 0.0), several=0.0, coloured=0.0, styled=0.0)
    several, styled = replace(mix, kinds=(0.0, 0.8, 0.2)), replace(one, styled=1.0)
    labels = mix.names
    ensemble, single = (things(eye, labels, templates) for templates in (TEMPLATES, TEMPLATES[:1]))
    plain = _first(count, one, split)
    seen = eye.images(plain)
    figures = naming("things, in style", labels, _concepts(plain), seen @ ensemble.T, (0.80, 0.95))
    figures += naming("things, one template", labels, _concepts(plain), seen @ single.T)[:1]
    for part, kind in (("things, other styles", styled), ("things, clutter", several)):
        scenes = _first(count, kind, split)
        figures += naming(part, labels, _concepts(scenes), eye.images(scenes) @ ensemble.T)[:2]
    dyed = replace(one, coloured=1.0)
    return [
        *figures,
        _attribute(eye, "colours", _first(count, dyed, split, "colour"), COLOURS, _coloured),
        _attribute(eye, "places", _first(count, one, split, "scene"), PLACES, _placed),
    ]


def drawings(eye: Eye, folder: Path, mix: Mix) -> list[Figure]:
    """Names the things of a folder of emoji as another vendor draws them: Twemoji, OpenMoji, named by code point.

    Raises SettingsError where no picture is of a thing of the world, ImageFileError.
    """
    labels = mix.names
    names = {code_points(drawing): name for name in labels for drawing in concepts()[name].drawings}
    found = [(names[key], path) for path in find_images([folder]) if (key := _key(path)) in names]
    if not found:
        raise SettingsError(
            f"drawings '{folder}' holds no emoji of the world, named such as '1f98a.png'", field="drawings"
        )
    told = eye.pictures(open_image(path) for _, path in found) @ things(eye, labels, TEMPLATES).T
    return naming("things, another's drawings", labels, [(name,) for name, _ in found], told, (0.35, 0.60))


def code_points(drawing: str) -> str:
    """Returns an emoji as files are named by it: `1f43b-200d-2744`."""
    return "-".join(f"{ord(char):x}" for char in drawing.replace(VARIATION, ""))


def _key(path: Path) -> str:
    name = path.stem.removeprefix("emoji_u").replace("_", "-").lower()
    return name.replace("-fe0f", "") if CODE_POINTS.fullmatch(name) else ""


def things(eye: Eye, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Returns the unit vectors [C, D] of things by their names, each the mean over templates."""
    return label_features(eye.encoder, [indefinite(name) for name in names], templates)


def naming(
    part: str,
    labels: Sequence[str],
    true: Sequence[tuple[str, ...]],
    told: Tensor,
    floors: tuple[float | None, float | None] = (None, None),
) -> list[Figure]:
    """Returns acc@1, acc@5 and the mean recall of classes, of cosines [N, C] and the names that are right for each."""
    best = [[labels[k] for k in row] for row in told.topk(min(TOP, len(labels)), dim=1).indices.tolist()]
    first = [row[0] in names for row, names in zip(best, true, strict=True)]
    among = [any(name in names for name in row) for row, names in zip(best, true, strict=True)]
    chances = [mean(len(names) for names in true) * k / len(labels) for k in (1, TOP)]
    recalls = [
        mean(hit for hit, names in zip(first, true, strict=True) if name in names)
        for name in dict.fromkeys(name for names in true for name in names)
    ]
    return [
        share(part, "acc@1", first, chance=chances[0], floor=floors[0]),
        share(part, "acc@5", among, chance=chances[1], floor=floors[1]),
        Figure(part, "recall per class", mean(recalls), len(recalls), chance=chances[0]),
    ]


def _attribute(
    eye: Eye, part: str, scenes: Sequence[Scene], values: Sequence[str], text: Callable[[Scene, str], str]
) -> Figure:
    """Returns how often the right one of a few values is told of scenes, each by texts of its own."""
    words = eye.texts([text(scene, value) for scene in scenes for value in values]).unflatten(0, (-1, len(values)))
    told = torch.einsum("nd,nvd->nv", eye.images(scenes), words).argmax(dim=1).tolist()
    right = [
        text(scene, values[k]) == text(scene, _value(scene, values)) for k, scene in zip(told, scenes, strict=True)
    ]
    return share(part, "acc@1", right, chance=1 / len(values))


def _value(scene: Scene, values: Sequence[str]) -> str:
    return scene.place if values is PLACES else scene.things[0].colour


def _coloured(scene: Scene, colour: str) -> str:
    return indefinite(f"{colour} {scene.things[0].concept}")


def _placed(scene: Scene, place: str) -> str:
    return f"{indefinite(scene.things[0].concept)} {PLACE_PHRASES[place][0]}"


def _first(count: int, mix: Mix, split: Split, kind: str = "") -> list[Scene]:
    """Returns the first unseen scenes of a world, those only that a cell of a kind makes unseen where one is named."""
    scenes = unseen(mix, split)
    return list(islice((s for s in scenes if not kind or any(cell[0] == kind for cell in held_out_cells(s))), count))


def _concepts(scenes: Sequence[Scene]) -> list[tuple[str, ...]]:
    return [tuple(thing.concept for thing in scene.things) for scene in scenes]
