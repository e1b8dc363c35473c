"""Compares two image files: their settings, their CLIP scores and their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.cli.flags import Flags
from clipgen.cli.output import Report
from clipgen.cli.resolve import typed
from clipgen.errors import ImageFileError, SettingsError
from clipgen.report.comparison import MIN_GAIN, UNCLEAR, ScoreSummary, summarize
from clipgen.settings.settings import FIELDS, Note

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipgen.image_file import RestoredSettings

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
SIDES = ("left", "right")


def image_files(words: Sequence[str]) -> tuple[Path, Path] | None:
    """Returns the two image files that the words of a command name, None if the words are prompts.

    Raises SettingsError for one image or more than two, and for an image file that does not exist.
    """
    paths = [Path(word) for word in words]
    named = [path for path in paths if path.suffix.lower() in SUFFIXES and " " not in path.name]
    exists = [path.is_file() for path in paths]
    if len(paths) == 2 and all(exists):
        return paths[0], paths[1]
    if paths and (all(exists) or len(named) == len(paths)):
        missing = [str(path) for path, is_there in zip(paths, exists, strict=True) if not is_there]
        wrong = f"'{missing[0]}' does not exist" if missing else f"compare takes two pictures, got {len(paths)}"
        raise SettingsError(f"{wrong}. Give a prompt, or two pictures", field="file")
    return None


def compare(paths: tuple[Path, Path], flags: Flags, judge: str | None, report: Report) -> dict[str, Any]:
    """Prints the differences of two image files and returns them for the envelope; raises ClipgenError."""
    from clipgen.image_file import open_image

    images = [open_image(path) for path in paths]
    restored = [_settings(path, report) for path in paths]
    differing = difference(*restored)
    prompts = [_prompt(flags, each) for each in restored]
    name = judge or str(typed(flags).get("model", "storybook"))
    scores, clip = _scores(name, images, prompts, flags) if all(prompts) else ([], None)
    pixels = mean_difference(*images)
    rows: list[tuple[object, ...]] = [(name, *values) for name, values in differing.items()]
    rows += [(f"CLIP score by {clip}", *scores)] if scores else []
    rows += [("mean pixel difference", "sizes differ" if pixels is None else f"{pixels:.1f} of 255", "")]
    report.table(("", *map(str, paths)), rows)
    graded = _self_graded(restored, clip)
    if scores:
        report.say(_gain(*scores) + (", self-graded" if graded else ""))
    return {
        "settings": {name: dict(zip(SIDES, values, strict=True)) for name, values in differing.items()},
        "clip": clip,
        "self_graded": graded,
        "opinions": {side: vars(each) for side, each in zip(SIDES, scores, strict=False)},
        "mean_pixel_difference": pixels,
    }


def difference(left: RestoredSettings | None, right: RestoredSettings | None) -> dict[str, tuple[Any, Any]]:
    """Returns the Settings fields whose values differ, with both values; {} if one image has no settings."""
    if left is None or right is None:
        return {}
    a, b = left.settings.to_dict(), right.settings.to_dict()
    return {name: (a[name], b[name]) for name in FIELDS if a[name] != b[name]}


def mean_difference(left: Image, right: Image) -> float | None:
    """Returns the mean absolute difference of two images, 0 to 255; None if their sizes differ."""
    import numpy as np

    if left.size != right.size:
        return None
    a, b = (np.asarray(image, dtype=np.float32) for image in (left, right))
    return float(np.abs(a - b).mean())


def _settings(path: Path, report: Report) -> RestoredSettings | None:
    from clipgen.image_file import read_settings

    try:
        return read_settings(path)
    except ImageFileError as error:
        report.warn(Note("no-settings", None, str(error)))
        return None


def _prompt(flags: Flags, restored: RestoredSettings | None) -> str | None:
    """Returns the text to score an image against: --prompt, else the prompt in the file."""
    from clipgen.text import plain_text

    if flags.prompts:
        return flags.prompts[0]
    if restored is None:
        return None
    return plain_text(restored.settings.prompt, restored.settings.prompt_syntax, restored.settings.long_prompt)


def _scores(
    name: str, images: Sequence[Image], prompts: Sequence[str | None], flags: Flags
) -> tuple[list[ScoreSummary], str]:
    """Returns the score of each image by one CLIP, and the name of that CLIP."""
    from clipgen.gallery import iter_image_features, load_clip

    scorer = load_clip(name, flags.options.device, offline=flags.options.offline)
    image_features = [features for _, features in iter_image_features(scorer.encoder, enumerate(images))]
    scores = [
        scorer.score_features(each[None], [text or ""])[0] for each, text in zip(image_features, prompts, strict=True)
    ]
    return [summarize(score) for score in scores], scorer.encoder.name


def _self_graded(restored: Sequence[RestoredSettings | None], clip: str | None) -> bool:
    """Returns whether the CLIP that scores the images has guided one of them."""
    records = [each.record for each in restored if each is not None and each.record]
    scores = [record["clip"] for record in records if record["clip"]]
    return any(score["self_graded"] and score["model"] == clip for score in scores)


def _gain(left: ScoreSummary, right: ScoreSummary) -> str:
    if left.percentile is None or right.percentile is None:
        return f"similarity {right.similarity - left.similarity:+.3f}, uncalibrated"
    points = right.percentile - left.percentile
    return f"{points:+.1f} points" if abs(points) >= MIN_GAIN else UNCLEAR
