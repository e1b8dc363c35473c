"""Draws a contact sheet of the world: `python -m clipgen.world --contact-sheet sheet.png`."""

from __future__ import annotations

import argparse
from pathlib import Path

from clipgen.world.contact_sheet import contact_sheet
from clipgen.world.grammar import captions
from clipgen.world.render import render
from clipgen.world.scene import Mix, sample_scene


def main() -> None:
    """Parses the command line and writes the sheet."""
    parser = argparse.ArgumentParser(prog="python -m clipgen.world", description=__doc__)
    parser.add_argument("--contact-sheet", type=Path, default=Path("world.png"), help="file to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first scene")
    parser.add_argument("--count", type=int, default=64, help="number of scenes")
    parser.add_argument("--size", type=int, default=128, help="side of a picture in pixels")
    parser.add_argument("--tier", type=int, default=3, help="1: favourites, 2: small vocabulary, 3: all")
    args = parser.parse_args()
    scenes = [sample_scene(seed, Mix(tier=args.tier)) for seed in range(args.seed, args.seed + args.count)]
    sheet = contact_sheet([render(scene, args.size) for scene in scenes], [captions(scene, 1)[0] for scene in scenes])
    sheet.save(args.contact_sheet)
    print(args.contact_sheet)


if __name__ == "__main__":
    main()
