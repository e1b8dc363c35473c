"""The captions that calibrate CLIP scores: `python -m clipgen.train.calibration` rewrites them.

A score's percentile tells how many of these fit a picture worse than its own prompt (clipgen.clip.score), so they read
like what people type: one or two things of the small vocabulary and a place, seldom a colour, a number or a style.
"""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path

from clipgen.world.grammar import caption
from clipgen.world.scene import Mix, sample_scene

CAPTIONS = Path(__file__).parents[1] / "clip" / "captions" / "storybook.txt"
HOW_MANY = 1000
FIRST_SEED = 1_700_000_000  # scenes far from those that anything trains on
LONGEST = 11  # words
PLAIN = Mix(
    tier=2, kinds=(0.62, 0.38, 0.0), several=0.1, coloured=0.12, plain=0.05, styled=0.05, timed=0.1, sized=0.05
)  # fmt: skip


def calibration_captions(how_many: int = HOW_MANY, first_seed: int = FIRST_SEED) -> list[str]:
    """Returns distinct captions of at most LONGEST words, from the scenes of `first_seed` on; always the same."""
    texts = (caption(sample_scene(seed, PLAIN), random.Random(seed)) for seed in count(first_seed))
    short = (text for text in texts if len(text.split()) <= LONGEST)
    found: dict[str, None] = {}
    while len(found) < how_many:
        found[next(short)] = None
    return list(found)


def main() -> None:
    """Writes the captions, one a line."""
    CAPTIONS.parent.mkdir(exist_ok=True)
    CAPTIONS.write_text("\n".join(calibration_captions()) + "\n", "utf-8")
    print(CAPTIONS)


if __name__ == "__main__":
    main()
