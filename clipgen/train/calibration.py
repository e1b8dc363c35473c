"""The captions that calibrate CLIP scores: `python -m clipgen.train.calibration` rewrites them.

The percentile of a score is the share of these captions that fit the image worse than its own prompt
(clipgen.clip.score). So they resemble what people type: one or two things and a place, seldom a colour, a number or a
style.
"""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path

from clipgen.world.grammar import caption
from clipgen.world.scene import Mix, sample_scene

CAPTIONS = Path(__file__).parents[1] / "clip" / "captions" / "storybook.txt"
HOW_MANY = 1000
FIRST_SEED = 1_700_000_000  # no training data uses these seeds
LONGEST = 11  # words
PLAIN = Mix(
    tier=2, kinds=(0.62, 0.38, 0.0), several=0.1, coloured=0.12, plain=0.05, styled=0.05, timed=0.1, sized=0.05
)  # fmt: skip


def calibration_captions(how_many: int = HOW_MANY, first_seed: int = FIRST_SEED) -> list[str]:
    """Returns distinct captions of at most LONGEST words of the scenes from `first_seed` on; deterministic."""
    texts = (caption(sample_scene(seed, PLAIN), random.Random(seed)) for seed in count(first_seed))
    short = (text for text in texts if len(text.split()) <= LONGEST)
    distinct: dict[str, None] = {}
    while len(distinct) < how_many:
        distinct[next(short)] = None
    return list(distinct)


def main() -> None:
    """Writes the captions, one per line."""
    CAPTIONS.parent.mkdir(exist_ok=True)
    CAPTIONS.write_text("\n".join(calibration_captions()) + "\n", "utf-8")
    print(CAPTIONS)


if __name__ == "__main__":
    main()
