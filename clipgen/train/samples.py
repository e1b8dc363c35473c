"""The uncurated samples of MODEL_CARD.md and README: `python -m clipgen.train.samples` draws them.

One sheet with seeds 1 to 16 for each of six prompts, and one with seed 1 of eighteen prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from clipgen.image_file import slug
from clipgen.pipeline.pipeline import Pipeline
from clipgen.pipeline.result import Result
from clipgen.settings.settings import Settings
from clipgen.world.contact_sheet import contact_sheet

PROMPTS = (
    "a fox in snow",
    "a cat on a beach",
    "a rocket in space",
    "an owl at night",
    "two pizzas on a table",
    "a red car in the city",
)
FIRST_PROMPTS = (
    *PROMPTS,
    "a dog in a meadow", "a panda in the forest", "a penguin in snow",
    "a house in the mountains", "a sailboat at sunset", "a castle in a meadow",
    "a lion in the desert", "a snowman in snow", "three apples on a table",
    "a horse in a meadow", "a bear in the forest", "a rabbit in a meadow",
)  # fmt: skip
SEEDS = 16
FIRST_SEEDS = "first-seeds.webp"


def draw_samples(pipe: Pipeline, folder: Path) -> list[Path]:
    """Writes one sheet of seeds 1 to 16 per prompt, row by row, without selection."""
    return [
        _sheet(pipe.run(Settings(prompt=prompt, seed=1, images=SEEDS)), 8, folder / f"{slug(prompt)}.webp")
        for prompt in PROMPTS
    ]


def draw_first_seeds(pipe: Pipeline, folder: Path) -> Path:
    """Writes one sheet with seed 1 of each prompt, six per row."""
    results = [result for prompt in FIRST_PROMPTS for result in pipe.run(Settings(prompt=prompt, seed=1))]
    return _sheet(results, 6, folder / FIRST_SEEDS)


def _sheet(results: Sequence[Result], columns: int, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet([result.image for result in results], columns=columns).save(path, quality=88, method=6)
    return path


def main() -> None:
    """Parses the command line and prints the paths."""
    parser = argparse.ArgumentParser(prog="python -m clipgen.train.samples", description=__doc__)
    parser.add_argument("--model", default="storybook", help="storybook or ./folder")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder for the sheets")
    args = parser.parse_args()
    pipe = Pipeline.from_pretrained(args.model)
    for path in (*draw_samples(pipe, args.out), draw_first_seeds(pipe, args.out)):
        print(path)


if __name__ == "__main__":
    main()
