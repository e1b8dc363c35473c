"""Writes the report of the picture benchmark: report.json, report.md and sheets of uncurated images in one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from clipgen.atomic import replace_file
from clipgen.bench.quality.metrics import COLUMNS, Metric, table
from clipgen.bench.quality.named import NamedConcept, by_seeds_right
from clipgen.errors import OutputError
from clipgen.world.contact_sheet import contact_sheet


def write_sheet(path: Path, images: Sequence[Image], labels: Sequence[str], columns: int) -> None:
    """Writes images in a grid as WebP; raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(images, labels, columns).save(path, quality=85, method=4)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error


def write_report(
    folder: Path, results: Mapping[str, Any], metrics: Sequence[Metric], named: Sequence[NamedConcept]
) -> None:
    """Writes report.json and report.md; raises OutputError."""
    try:
        replace_file(folder / "report.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        replace_file(folder / "report.md", "\n".join(_markdown(results, metrics, named)) + "\n")
    except OSError as error:
        raise OutputError(f"'{folder}' cannot be written: {error.strerror or error}") from error


def _markdown(results: Mapping[str, Any], metrics: Sequence[Metric], named: Sequence[NamedConcept]) -> Iterator[str]:
    yield "# Picture quality"
    yield ""
    yield "Closed world: not comparable with the public benchmarks. Nothing is selected by hand."
    yield ""
    yield from (f"- {name}: {value}" for name, value in results["protocol"].items())
    yield from (f"- {note}" for note in results["notes"])
    yield ""
    yield from markdown_table(COLUMNS, table(metrics))
    if named:
        yield from ["", "## Concepts by the number of seeds that the judge and CLIP both name rightly", ""]
        seeds = len(named[0].judge)
        for count, names in by_seeds_right(named).items():
            yield f"- **{count} of {seeds}** ({len(names)}): {', '.join(names)}"
    for title, file in results["sheets"]:
        yield from ["", f"## {title}", "", f"![{title}]({file})"]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]
