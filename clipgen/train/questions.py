"""What clipgen.clip.prompt_check takes for granted, measured: `python -m clipgen.train.questions` prints it.

How far a phrase stands out of others where it is true of a picture and where it is not, on renders nothing trained on.
"""

from __future__ import annotations

import argparse
import random
from statistics import fmean, stdev

import numpy as np
import torch

from clipgen.clip.prompt_check import PromptChecker, split_phrases
from clipgen.clip.score import Scorer, read_captions
from clipgen.models import load_encoder
from clipgen.models.find import BUNDLED
from clipgen.train.calibration import PLAIN
from clipgen.world.grammar import plain_caption
from clipgen.world.render import render
from clipgen.world.scene import Scene, sample_scene

FIRST_SEED = 1_800_000_000  # scenes far from those that anything trains on
FALSE = 3  # phrases of other scenes asked about each picture


def measure(prompt_checker: PromptChecker, scenes: list[Scene], rng: random.Random) -> tuple[list[float], list[float]]:
    """Returns how far the phrases of each scene's own plain caption stand out of its picture, and those of others."""
    told = [split_phrases(plain_caption(scene)) for scene in scenes]
    side = prompt_checker.scorer.encoder.image_size
    true, false = list[float](), list[float]()
    for scene, own in zip(scenes, told, strict=True):
        image = prompt_checker.image_features(_pixels(scene, side))
        others = [phrase for phrases in rng.sample(told, len(told)) for phrase in phrases if phrase not in own][:FALSE]
        for found, phrases in ((true, own), (false, others)):
            found += [far for phrase in phrases if (far := prompt_checker.z_score(image, phrase)) is not None]
    return true, false


def _pixels(scene: Scene, side: int) -> torch.Tensor:
    """Returns the render of a scene [3, side, side] in [0, 1]."""
    return torch.from_numpy(np.array(render(scene, side))).permute(2, 0, 1).float() / 255


def main() -> None:
    """Parses the command line and prints the three numbers, and how many phrases they tell rightly."""
    parser = argparse.ArgumentParser(prog="python -m clipgen.train.questions", description=__doc__)
    parser.add_argument("--clip", default=str(BUNDLED["storybook"] / "clip"), help="folder of a CLIP")
    parser.add_argument("--scenes", type=int, default=200, help="number of scenes")
    args = parser.parse_args()
    scorer = Scorer(load_encoder(args.clip, torch.device("cpu")), read_captions())
    scenes = [sample_scene(seed, PLAIN) for seed in range(FIRST_SEED, FIRST_SEED + args.scenes)]
    true, false = measure(PromptChecker(scorer), scenes, random.Random(0))
    present, absent = fmean(true), fmean(false)
    spread = fmean((stdev(true), stdev(false)))
    middle = (present + absent) / 2
    right = fmean(far > middle for far in true), fmean(far <= middle for far in false)
    print(f"PRESENT, ABSENT, SPREAD = {present:.2f}, {absent:.2f}, {spread:.2f}")
    print(f"told rightly: {right[0]:.0%} of {len(true)} that are there, {right[1]:.0%} of {len(false)} that are not")


if __name__ == "__main__":
    main()
