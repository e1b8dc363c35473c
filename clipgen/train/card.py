"""The uncurated samples of MODEL_CARD.md: `python -m clipgen.train.card` draws seeds 1 to 16 of six prompts."""

from __future__ import annotations

import argparse
from pathlib import Path

from clipgen.image_file import slug
from clipgen.pipeline import Pipeline
from clipgen.settings import Settings
from clipgen.train.world.sheet import contact_sheet

PROMPTS = (
    "a fox in snow",
    "a cat on a beach",
    "a rocket in space",
    "an owl at night",
    "two pizzas on a table",
    "a red car in the city",
)
SEEDS = 16


def draw_samples(model: str, folder: Path) -> list[Path]:
    """Writes one sheet of seeds 1 to 16 for each prompt, row by row, nothing left out."""
    pipe, written = Pipeline.from_pretrained(model), list[Path]()
    folder.mkdir(parents=True, exist_ok=True)
    for prompt in PROMPTS:
        results = pipe.run(Settings(prompt=prompt, seed=1, images=SEEDS))
        written.append(folder / f"{slug(prompt)}.webp")
        contact_sheet([result.image for result in results], columns=8).save(written[-1], quality=88, method=6)
    return written


def main() -> None:
    """Parses the command line and prints the paths."""
    parser = argparse.ArgumentParser(prog="python -m clipgen.train.card", description=__doc__)
    parser.add_argument("--model", default="storybook", help="storybook or ./folder")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder for the sheets")
    args = parser.parse_args()
    print("\n".join(str(path) for path in draw_samples(args.model, args.out)))


if __name__ == "__main__":
    main()
