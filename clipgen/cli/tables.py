"""Aligned text tables for the terminal; long words such as paths are never broken."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

GAP = 2  # spaces between columns
MIN_WIDTH = 16  # of a column that is wrapped
INDENT = 4  # of a path that has a line to itself


def flat(cell: object) -> str:
    """Returns a table cell on one line: None as "", a list as its items, a bool as `true` or `false`."""
    if isinstance(cell, list | tuple):
        return ", ".join(map(flat, cell))
    text = str(cell).lower() if isinstance(cell, bool) else str(cell)
    return "" if cell is None else " ".join(text.split())


def layout(columns: Sequence[str], rows: Sequence[Sequence[object]], width: int) -> list[str]:
    """Returns the heading (if any column has a name) and the rows as lines of at most `width` characters.

    Text wraps between words in the widest column. If a column holds only paths and the table does not fit, each path
    gets a line below its row. A word longer than its column makes a line longer than `width`; the terminal wraps it.
    """
    cells = [[flat(cell) for cell in row] for row in rows]
    table = [list(columns), *cells] if any(columns) else cells
    paths = [k for k in range(len(columns)) if any(columns) and _is_path_column([row[k] for row in rows])]
    if not paths or sum(_widths(table)) - GAP <= width:
        return _lines(table, width)
    rest = [[cell for k, cell in enumerate(row) if k != paths[0]] for row in table]
    blocks = [_lines([row], width, _fitted(rest, width)) for row in rest]
    for block, row in zip(blocks[1:], cells, strict=True):
        block += [" " * INDENT + row[paths[0]]] if row[paths[0]] else []
    return [line for block in blocks for line in block]


def _is_path_column(cells: Sequence[object]) -> bool:
    return any(isinstance(cell, Path) for cell in cells) and all(isinstance(cell, Path | None) for cell in cells)


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    """Returns the width of each column, the gap after it included."""
    from rich.cells import cell_len

    return [max(cell_len(cell) for cell in column) + GAP for column in zip(*table, strict=True)]


def _fitted(table: Sequence[Sequence[str]], width: int) -> list[int]:
    """Returns the width of each column, the widest one reduced until the table fits into `width`."""
    widths = _widths(table)
    if (surplus := sum(widths) - GAP - width) > 0:
        widest = widths.index(max(widths))
        widths[widest] = max(MIN_WIDTH, widths[widest] - surplus)
    return widths


def _lines(table: Sequence[Sequence[str]], width: int, widths: Sequence[int] = ()) -> list[str]:
    """Returns rows as lines, each cell wrapped between words to the width of its column."""
    from rich.cells import cell_len

    widths = widths or _fitted(table, width)
    lines = []
    for row in table:
        wrapped = [_wrap(cell, space - GAP) for cell, space in zip(row, widths, strict=True)]
        for k in range(max(len(part) for part in wrapped)):
            parts = [part[k] if k < len(part) else "" for part in wrapped]
            line = "".join(text + " " * (space - cell_len(text)) for text, space in zip(parts, widths, strict=True))
            lines.append(line.rstrip())
    return lines


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(1, width), break_long_words=False, break_on_hyphens=False) or [""]
