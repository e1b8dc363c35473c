"""Runs the parts of the picture benchmark: `clipgen bench quality --pictures`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from clipgen.bench import gain
from clipgen.bench.quality.drawing import PictureTest, to_image_or_black
from clipgen.bench.quality.named import NamedConcept, Namer, by_concept, by_seeds_right, draw_named, named_metrics
from clipgen.bench.quality.picture_report import write_report, write_sheet
from clipgen.bench.quality.picture_results import PictureResults
from clipgen.bench.quality.questions import Questions, image_features, wrong_prompts
from clipgen.bench.quality.round_trip import has_drawings, round_trips, single_scenes
from clipgen.bench.quality.scene_eval import overall, passes, scene_eval
from clipgen.bench.quality.scene_prompts import CATEGORIES, COMPOSITIONAL, scene_prompts
from clipgen.bench.timing import describe_machine
from clipgen.image_file import slug
from clipgen.train.samples import PROMPTS, SEEDS
from clipgen.train.tiers import TIERS
from clipgen.world.concepts import vocabulary_hash
from clipgen.world.scene import Mix
from clipgen.world.unseen import Split

PARTS = ("named", "scenes", "guidance", "grids")
GRID_COLUMNS = 8
EQUAL_TIME = 2.0  # time of every guidance variant relative to an unguided image
GUIDANCE_SHARE = 3  # one prompt in three of each compositional category measures guidance
TIMED_PROMPTS = 4  # prompts on which the cost of each variant is measured first
SHEET_SIDE = 128  # pixels of an image on the contact sheet of all concepts
SHEET_COLUMNS = 20


@dataclass(frozen=True)
class PictureOptions:
    """How much the benchmark draws, and where it writes.

    Attributes:
        folder: The folder of the report and its sheets.
        parts: Which of PARTS run.
        split: "dev" or "test".
        concepts: Number of concepts that are drawn, in the order of the vocabulary; None for all.
        seeds: Images per concept.
        count: Prompts per category.
        grid_seeds: Images per grid.
        art: The set of drawings that the model was trained on, for the ceilings.
    """

    folder: Path
    parts: Sequence[str] = PARTS
    split: Split = "dev"
    concepts: int | None = None
    seeds: int = 4
    count: int = 60
    grid_seeds: int = SEEDS
    art: str = "flat"


def measure_pictures(test: PictureTest, options: PictureOptions) -> PictureResults:
    """Runs the parts one after the other and writes the report after each."""
    results = PictureResults(protocol(test, options))
    runs = {"named": _named, "scenes": _scenes, "guidance": _guidance, "grids": _grids}
    if not has_drawings(options.art):
        results.notes.append(f"No ceilings: the drawings '{options.art}' or resvg-py are not installed.")
    for part in options.parts:
        runs[part](test, options, results)
        write_report(options.folder, results)
    return results


def protocol(test: PictureTest, options: PictureOptions) -> dict[str, Any]:
    """Returns the measuring conditions as JSON values."""
    settings = test.settings("a fox", 1)
    sampling = ("steps", "scheduler", "guidance_scale", "eta", "width", "height")
    return {
        "model": test.pipe.origin.model,
        "weights": test.pipe.origin.hash(),
        "judge": test.judge.encoder.name,
        "vocabulary": vocabulary_hash(),
        "concepts": len(test.names),
        **{name: getattr(settings, name) for name in sampling},
        **{name: getattr(options, name) for name in ("split", "seeds", "count", "art")},
        "machine": describe_machine(),
    }


def _named(test: PictureTest, options: PictureOptions, results: PictureResults) -> None:
    names = test.names[: options.concepts]
    results.named, images = draw_named(test, names, options.seeds)
    labels = [f"{row.name} {sum(row.right)}/{len(row.judge)}" for row in results.named]
    title = f"All {len(names)} concepts, seed 1, with the number of seeds that both CLIPs name rightly"
    small = [image.resize((SHEET_SIDE, SHEET_SIDE)) for image in images]
    write_sheet(options.folder / "concepts.webp", small, labels, SHEET_COLUMNS)
    results.sheets.append((title, "concepts.webp"))
    results.metrics += named_metrics(results.named, _ceiling(test, options, names))


def _ceiling(test: PictureTest, options: PictureOptions, names: Sequence[str]) -> list[NamedConcept] | None:
    """Returns what is chosen for autoencoder round trips of true renders; None without the drawings."""
    if not has_drawings(options.art):
        return None
    test.on_progress(f"ceiling: {len(names)} renders through the autoencoder")
    namer, side = Namer(test.encoders, test.names), test.pipe.defaults["width"]
    chosen = [namer(pixels) for pixels in round_trips(test.pipe.family, single_scenes(names, options.art), side)]
    return by_concept(names, chosen, 1)


def _scenes(test: PictureTest, options: PictureOptions, results: PictureResults) -> None:
    for category in CATEGORIES:
        rows, metrics = scene_eval(
            test, category, options.count, options.split, _mix(test, options), ceiling=has_drawings(options.art)
        )
        results.scenes += rows
        results.metrics += metrics
    results.metrics += overall(results.scenes)


def _mix(test: PictureTest, options: PictureOptions) -> Mix:
    """Returns the distribution of the denoiser's training scenes, with the concepts that the model claims."""
    assert test.pipe.vocabulary is not None
    return replace(TIERS["cpu"].narrow, tier=test.pipe.vocabulary.tier, arts=(options.art,))


def _guidance(test: PictureTest, options: PictureOptions, results: PictureResults) -> None:
    """Measures the guidance variants at equal time on unseen compositional prompts; the judge alone decides."""
    mix = _mix(test, options)
    prompts = [
        prompt
        for category in COMPOSITIONAL
        for prompt in scene_prompts(category, -(-options.count // GUIDANCE_SHARE), options.split, mix)
        if not prompt.seen
    ]
    texts = [prompt.text() for prompt in prompts]
    encoder = test.judge.encoder

    def is_passed(index: int, pixels: Tensor) -> bool:
        questions = Questions(encoder, texts[index], wrong_prompts(prompts[index], test.names))
        return passes([questions.answers(image_features(encoder, pixels))])

    timed = gain.measure(test.pipe, test.judge, texts[:TIMED_PROMPTS])
    variants = gain.at_equal_time(timed, EQUAL_TIME)
    results.guidance = gain.measure(test.pipe, test.judge, texts, variants, is_passed, test.on_progress)


def _grids(test: PictureTest, options: PictureOptions, results: PictureResults) -> None:
    """Draws one sheet of seeds 1 to `grid_seeds` per prompt, nothing left out."""
    prompts = [(prompt, seed) for prompt in PROMPTS for seed in range(1, options.grid_seeds + 1)]
    images = [to_image_or_black(pixels) for pixels in test.draw("grids", prompts)]
    for k, prompt in enumerate(PROMPTS):
        file = f"{slug(prompt)}.webp"
        grid = images[k * options.grid_seeds : (k + 1) * options.grid_seeds]
        write_sheet(options.folder / file, grid, (), GRID_COLUMNS)
        results.sheets.append((f"{prompt}, seeds 1 to {options.grid_seeds}", file))


def summary(results: PictureResults) -> list[str]:
    """Returns lines for the terminal: the concepts by the number of seeds that are right, and the notes."""
    groups = by_seeds_right(results.named) if results.named else {}
    seeds = len(results.named[0].judge) if results.named else 0
    return [f"{count} of {seeds}: {', '.join(names)}" for count, names in groups.items()] + results.remarks
