"""The captions that calibrate CLIP scores."""

from __future__ import annotations

from clipgen.train.calibration import CAPTIONS, HOW_MANY, LONGEST, calibration_captions
from clipgen.world.grammar import STYLE_PHRASES

STORED = CAPTIONS.read_text("utf-8").splitlines()


def test_the_file_holds_distinct_short_lines() -> None:
    assert len(STORED) == len(set(STORED)) == HOW_MANY
    assert all(line == line.strip() and 1 <= len(line.split()) <= LONGEST for line in STORED)


def test_most_captions_name_no_style() -> None:
    styles = [phrase for phrases in STYLE_PHRASES.values() for phrase in phrases]
    styled = [line for line in STORED if any(phrase in line for phrase in styles)]
    assert len(styled) < HOW_MANY / 8


def test_captions_are_the_same_each_time() -> None:
    assert calibration_captions(40) == calibration_captions(60)[:40]
    assert calibration_captions(5) != calibration_captions(5, first_seed=1)
