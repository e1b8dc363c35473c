"""Writes the report of the picture benchmark: report.json, report.md and sheets of uncurated images in one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL.Image import Image

from clipgen.atomic import replace_file
from clipgen.bench.gain import GainRow
from clipgen.bench.quality.metrics import COLUMNS, table
from clipgen.bench.quality.named import by_seeds_right
from clipgen.bench.quality.picture_results import PictureResults
from clipgen.errors import OutputError
from clipgen.world.contact_sheet import contact_sheet

GUIDANCE_COLUMNS = ("variant", "time", "passed", "gain", "95%", "judge", "gain", "95%", "guiding CLIP")


def write_sheet(path: Path, images: Sequence[Image], labels: Sequence[str], columns: int) -> None:
    """Writes images in a grid as WebP; raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(images, labels, columns).save(path, quality=85, method=4)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error


def write_report(folder: Path, results: PictureResults) -> None:
    """Writes report.json and report.md; raises OutputError."""
    try:
        replace_file(folder / "report.json", json.dumps(results.to_dict(), indent=1, ensure_ascii=False) + "\n")
        replace_file(folder / "report.md", "\n".join(_markdown(results)) + "\n")
    except OSError as error:
        raise OutputError(f"'{folder}' cannot be written: {error.strerror or error}") from error


def _markdown(results: PictureResults) -> Iterator[str]:
    yield from ["# Picture quality", ""]
    yield from ["Closed world: not comparable with the public benchmarks. No image is selected by hand.", ""]
    yield from (f"- {name}: {value}" for name, value in results.protocol.items())
    yield from (f"- {note}" for note in results.remarks)
    yield from ["", *markdown_table(COLUMNS, table(results.metrics))]
    if results.guidance:
        yield from ["", "## Guidance at equal processor time, on unseen prompts, by the judge", ""]
        yield "`passed` and `judge` are the share of images that pass and the judge's similarity, with their gains."
        yield from ["", *markdown_table(GUIDANCE_COLUMNS, guidance_table(results.guidance))]
    if results.named:
        yield from ["", "## Concepts by the number of seeds that the judge and CLIP both name rightly", ""]
        seeds = len(results.named[0].judge)
        for count, names in by_seeds_right(results.named).items():
            yield f"- **{count} of {seeds}** ({len(names)}): {', '.join(names)}"
    for title, file in results.sheets:
        yield from ["", f"## {title}", "", f"![{title}]({file})"]
    if failed := [row.to_dict() for row in results.scenes if not row.passed]:
        yield from ["", "## Prompts that fail, with the questions that the judge and CLIP answer wrongly", ""]
        rows = [(row["id"], row["prompt"], ", ".join(row["judge"]), ", ".join(row["clip"])) for row in failed]
        yield from markdown_table(("id", "prompt", "judge", "CLIP"), rows)


def guidance_table(rows: Sequence[GainRow]) -> list[tuple[str, ...]]:
    """Returns the cells of GUIDANCE_COLUMNS, one tuple per variant."""
    return [
        (
            row.variant, f"{row.cost:.2f}", f"{row.passed:.3f}", f"{row.passed_gain:+.3f}",
            f"{row.passed_low:+.3f} to {row.passed_high:+.3f}", f"{row.judge:.3f}", f"{row.gain:+.3f}",
            f"{row.low:+.3f} to {row.high:+.3f}", f"{row.guide:.3f}",
        )
        for row in rows
    ]  # fmt: skip


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]
