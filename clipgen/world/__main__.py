"""Draws two contact sheets of the world: scenes with captions, and one drawing of each concept with its name."""

from __future__ import annotations

import argparse
from pathlib import Path

from clipgen.world.art import PACKAGES
from clipgen.world.concepts import concepts
from clipgen.world.contact_sheet import concept_sheet, contact_sheet
from clipgen.world.grammar import captions
from clipgen.world.render import render
from clipgen.world.scene import Mix, sample_scene


def main() -> None:
    """Parses the command line, writes both sheets and prints their paths."""
    args = _parser().parse_args()
    mix = Mix(tier=args.tier, arts=(args.art,))
    scenes = [sample_scene(seed, mix) for seed in range(args.seed, args.seed + args.count)]
    sheet = contact_sheet([render(scene, args.size) for scene in scenes], [captions(scene, 1)[0] for scene in scenes])
    sheet.save(args.contact_sheet)
    print(args.contact_sheet)
    concept_sheet([concepts()[name] for name in mix.names], args.art).save(args.concept_sheet)
    print(args.concept_sheet)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clipgen.world", description=__doc__)
    add = parser.add_argument
    add("--contact-sheet", type=Path, nargs="?", default=Path("world.png"), const=Path("world.png"), metavar="FILE",
        help="file for the sheet of scenes (default: world.png)")  # fmt: skip
    add("--concept-sheet", type=Path, default=Path("concepts.png"), metavar="FILE",
        help="file for the sheet of concepts (default: concepts.png)")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of the first scene")
    add("--count", type=int, default=64, help="number of scenes")
    add("--size", type=int, default=256, help="side of a scene in pixels (default: 256)")
    add("--tier", type=int, default=2, help="highest tier of the vocabulary: 1, 2 or 3 (default: 2)")
    add("--art", choices=PACKAGES, default="flat", help="set of drawings (default: flat)")
    return parser


if __name__ == "__main__":
    main()
