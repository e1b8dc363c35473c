"""Measures the constants of clipgen.clip.prompt_check: `python -m clipgen.train.phrase_scores` prints them.

They are the mean z-scores of phrases that are true of an image and of phrases that are not, and their standard
deviation, on renders that no model was trained on.
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
from clipgen.models.ids import BUNDLED
from clipgen.train.calibration import PLAIN
from clipgen.world.grammar import plain_caption
from clipgen.world.render import render
from clipgen.world.scene import Scene, sample_scene

FIRST_SEED = 1_800_000_000  # no training data uses these seeds
FALSE_PHRASES = 3  # phrases of other scenes per image


def measure(checker: PromptChecker, scenes: list[Scene], rng: random.Random) -> tuple[list[float], list[float]]:
    """Returns the z-scores of the phrases of each scene's plain caption, and of phrases of other scenes."""
    captions = [split_phrases(plain_caption(scene)) for scene in scenes]
    size = checker.scorer.encoder.image_size
    true, false = list[float](), list[float]()
    for scene, own in zip(scenes, captions, strict=True):
        image = checker.image_features(_pixels(scene, size))
        shuffled = (phrase for phrases in rng.sample(captions, len(captions)) for phrase in phrases)
        others = [phrase for phrase in shuffled if phrase not in own][:FALSE_PHRASES]
        for scores, phrases in ((true, own), (false, others)):
            scores += [z for phrase in phrases if (z := checker.z_score(image, phrase)) is not None]
    return true, false


def _pixels(scene: Scene, size: int) -> torch.Tensor:
    """Returns the render of a scene [3, size, size] in [0, 1]."""
    return torch.from_numpy(np.array(render(scene, size))).permute(2, 0, 1).float() / 255


def main() -> None:
    """Parses the command line, prints the constants and the accuracy of the threshold between the means."""
    parser = argparse.ArgumentParser(prog="python -m clipgen.train.phrase_scores", description=__doc__)
    parser.add_argument("--clip", default=str(BUNDLED["storybook"] / "clip"), help="folder of a CLIP")
    parser.add_argument("--scenes", type=int, default=200, help="number of scenes")
    args = parser.parse_args()
    scorer = Scorer(load_encoder(args.clip, torch.device("cpu")), read_captions())
    scenes = [sample_scene(seed, PLAIN) for seed in range(FIRST_SEED, FIRST_SEED + args.scenes)]
    true, false = measure(PromptChecker(scorer), scenes, random.Random(0))
    present, absent = fmean(true), fmean(false)
    spread = fmean((stdev(true), stdev(false)))
    threshold = (present + absent) / 2
    recall, specificity = fmean(z > threshold for z in true), fmean(z <= threshold for z in false)
    print(f"PRESENT, ABSENT, SPREAD = {present:.2f}, {absent:.2f}, {spread:.2f}")
    print(f"recognised {recall:.0%} of {len(true)} true phrases, rejected {specificity:.0%} of {len(false)} false ones")


if __name__ == "__main__":
    main()
