"""Help pages: usage, one sentence, examples, then panels of commands, arguments and options."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

MAX_WIDTH = 100  # characters per line, also in a wider terminal
MAX_OPTION_WIDTH = 30  # characters of the column that lists options
DEFAULT_PANEL = "Other"
FINE_TUNING = "Fine tuning"  # options in this panel are listed by --help-all only


def print_help(command: Any, ctx: Any, *, everything: bool = False) -> None:
    """Prints a command's help page on stdout, coloured in a terminal; `everything` adds the panel FINE_TUNING."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = min(console.width, MAX_WIDTH)
    with console.capture() as captured:
        for part in _page(command, ctx, console.width, everything):
            console.print(part)
    print(captured.get(), end="", flush=True)


def _page(command: Any, ctx: Any, width: int, everything: bool) -> Iterable[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    summary, _, examples = (command.help or "").partition("\n\n")
    yield Padding(Text(_usage(command, ctx), style="bold"), (1, 1, 0, 1))
    yield Padding(Text(" ".join(summary.split())), (1, 1))
    yield from (Padding(_examples(block, width - 2), (0, 1, 1, 1)) for block in filter(None, examples.split("\n\n")))
    rows = [*_command_rows(command, ctx), *_parameter_rows(command, ctx, everything)]
    column = max((len(left) for _, left, _ in rows), default=0)
    titles = dict.fromkeys(panel for panel, _, _ in rows)
    for title in sorted(titles, key=lambda title: title == DEFAULT_PANEL):
        yield _panel(title, [(left, right) for panel, left, right in rows if panel == title], column)


def _usage(command: Any, ctx: Any) -> str:
    """Returns for example `Usage: clipgen info FILE... [OPTIONS]`."""
    arguments = [param.metavar for param in command.params if param.param_type_name == "argument"]
    words = ["COMMAND"] if isinstance(command, TyperGroup) else arguments
    return " ".join(["Usage:", ctx.command_path, *words, "[OPTIONS]"])


def _examples(block: str, width: int) -> RenderableType:
    """Returns lines of `command   what it does` as two columns, or one above the other if they are too wide."""
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


def _command_rows(command: Any, ctx: Any) -> Iterable[tuple[str, str, Text]]:
    """Yields panel, name and summary of each command of a group."""
    from rich.text import Text

    for name in command.list_commands(ctx) if isinstance(command, TyperGroup) else ():
        child = command.commands[name]
        yield child.rich_help_panel or "Commands", name, Text(_first_line(child.help or ""))


def _parameter_rows(command: Any, ctx: Any, everything: bool) -> Iterable[tuple[str, str, Text]]:
    """Yields panel, spelling and help of each argument and option; --help comes last."""
    from rich.text import Text

    for param in command.get_params(ctx):
        if everything or param.rich_help_panel != FINE_TUNING:
            short, omitted = spelling(param)
            text = Text(param.help or "")
            text.append(f" Also {', '.join(omitted)}." if omitted else "")
            default = default_text(param)
            text.append(f" [default: {default}]" if default else "", style="dim")
            yield param.rich_help_panel or DEFAULT_PANEL, short, text


def spelling(param: Any) -> tuple[str, list[str]]:
    """Returns how an argument or option is written, `-s, --seed N`, and the aliases that do not fit in the column."""
    if param.param_type_name == "argument":
        return str(param.metavar), []
    names = sorted(param.opts, key=lambda name: (name.startswith("--"), len(name) if not name.startswith("--") else 0))
    names += param.secondary_opts
    value = "" if param.is_flag or param.count else f" {param.metavar}"
    omitted: list[str] = []
    while len(", ".join(names) + value) > MAX_OPTION_WIDTH:
        omitted.insert(0, names.pop())
    return ", ".join(names) + value, omitted


def default_text(param: Any) -> str:
    """Returns the default of an argument or option as help shows it, "" if there is nothing to show.

    A text in `show_default` replaces the value: several defaults come from config.toml or from the model.
    """
    if isinstance(param.show_default, str):
        return str(param.show_default)
    if not param.show_default or param.default in (None, False, "", (), []):
        return ""
    return "on" if param.default is True else str(param.default)


def _panel(title: str, rows: list[tuple[str, Text]], column: int) -> RenderableType:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(width=column, no_wrap=True)
    table.add_column(ratio=1)
    for left, right in rows:
        table.add_row(Text(left, style="cyan"), right)
    return Panel(table, title=title, title_align="left", border_style="dim")


def _first_line(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())
