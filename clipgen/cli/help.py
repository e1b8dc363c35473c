"""The help pages: usage, one line of purpose, examples, then panels of flags or commands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDEST = 100  # characters a line, however wide the terminal
OTHERS = "Other"


def print_help(command: Any, ctx: Any) -> None:
    """Prints a command's page on stdout; colours only in a terminal that wants them."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = min(console.width, WIDEST)
    with console.capture() as captured:
        for part in _page(command, ctx, console.width):
            console.print(part)
    print(captured.get(), end="", flush=True)


def _page(command: Any, ctx: Any, width: int) -> Iterable[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    purpose, _, rest = (command.help or "").partition("\n\n")
    yield Padding(Text(f"{_usage(command, ctx)}", style="bold"), (1, 1, 0, 1))
    yield Padding(Text(" ".join(purpose.split())), (1, 1))
    yield from (Padding(_examples(block, width - 2), (0, 1, 1, 1)) for block in filter(None, rest.split("\n\n")))
    rows = [*_command_rows(command, ctx), *_parameter_rows(command, ctx)]
    wide = max((len(left) for _, left, _ in rows), default=0)
    for title in dict.fromkeys(panel for panel, _, _ in rows):
        yield _panel(title, [(left, right) for panel, left, right in rows if panel == title], wide)


def _usage(command: Any, ctx: Any) -> str:
    """Returns `clipgen info FILE... [OPTIONS]`: arguments first, as people type them."""
    arguments = [param.metavar for param in command.params if param.param_type_name == "argument"]
    words = ["COMMAND"] if isinstance(command, TyperGroup) else arguments
    return " ".join(["Usage:", ctx.command_path, *words, "[OPTIONS]"])


def _examples(block: str, width: int) -> RenderableType:
    """Returns a block of help text: `clipgen ...   what it does` in two columns, or one below the other if too wide."""
    from rich.table import Table
    from rich.text import Text

    rows = [re.split(r"\s{3,}", line.strip(), maxsplit=1) for line in block.splitlines()]
    pairs = [(row[0], row[1] if len(row) > 1 else "") for row in rows]
    left, right = (max(len(pair[side]) for pair in pairs) for side in (0, 1))
    styles = ["cyan" if re.match("clipgen|accelerate", words) else "" for words, _ in pairs]
    if left + 3 + right > width:
        lines = [
            Text(words, style) + Text(f"\n    {why}" * bool(why), "dim")
            for (words, why), style in zip(pairs, styles, strict=True)
        ]
        return Text("\n").join(lines)
    table = Table.grid(padding=(0, 3))
    for (words, why), style in zip(pairs, styles, strict=True):
        table.add_row(Text(words, style=style), Text(why, style="dim"))
    return table


def _command_rows(command: Any, ctx: Any) -> Iterable[tuple[str, str, str]]:
    """Yields panel, name and first line of each command of a group."""
    for name in command.list_commands(ctx) if isinstance(command, TyperGroup) else ():
        child = command.commands[name]
        yield child.rich_help_panel or "Commands", name, _first_line(child.help or "")


def _parameter_rows(command: Any, ctx: Any) -> Iterable[tuple[str, str, str]]:
    """Yields panel, spelling and help of each argument and flag; --help comes last."""
    for param in command.get_params(ctx):
        if not param.hidden:
            yield param.rich_help_panel or OTHERS, spelling(param), param.help or ""


def spelling(param: Any) -> str:
    """Returns an argument's name, or a flag's names, short ones first, and what follows it: `-s, --seed N`."""
    if param.param_type_name == "argument":
        return str(param.metavar)
    names = sorted(param.opts, key=lambda name: (name.startswith("--"), len(name) if not name.startswith("--") else 0))
    value = "" if param.is_flag or param.count else f" {param.metavar}"
    return ", ".join([*names, *param.secondary_opts]) + value


def _panel(title: str, rows: list[tuple[str, str]], wide: int) -> RenderableType:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(width=wide, no_wrap=True)
    table.add_column(ratio=1)
    for left, right in rows:
        table.add_row(Text(left, style="cyan"), Text(right))
    return Panel(table, title=title, title_align="left", border_style="dim")


def _first_line(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())
