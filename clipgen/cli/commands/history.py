"""`clipgen history`: lists the pictures that were drawn and manages the history."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipgen.cli import complete, config_file
from clipgen.cli.group import Command, Group
from clipgen.cli.numbers import whole
from clipgen.cli.output import Report
from clipgen.errors import SettingsError
from clipgen.home import history_path
from clipgen.report.command_line import command_line
from clipgen.report.score_text import percent

if TYPE_CHECKING:
    from clipgen.history import Entry

app = typer.Typer(cls=Group)
ID = whole("id", 1)
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")]
Id = Annotated[int, typer.Argument(metavar="ID", help="The id in the list.", autocompletion=complete.ids, parser=ID)]


@app.callback(invoke_without_command=True)
def history(context: typer.Context, json: Json = False) -> None:
    """The pictures drawn so far: list, show, forget, on, off.

    clipgen history list fox
    clipgen history show 12
    clipgen again 12 --change steps=40
    """
    if context.invoked_subcommand is None:
        list_(json=json)


@app.command("list", cls=Command)
def list_(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORD...]", help="Words that settings or path contain.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="The maximum number of pictures.", parser=whole("limit", 1))
    ] = 20,
    json: Json = False,
) -> None:
    """List pictures, newest first."""
    from clipgen import history as store

    with Report(json=json) as report:
        entries = store.find(words or (), limit=limit)
        report.data = {"pictures": [entry.to_dict() for entry in entries]}
        rows = [
            (
                e.id,
                e.time.astimezone().strftime("%Y-%m-%d %H:%M"),
                e.settings.seed,
                _percent(e),
                e.settings.title,
                _short(e.path),
            )
            for e in entries
        ]
        report.table(("id", "when", "seed", "CLIP", "prompt", "path"), rows)
        if not rows:
            report.say("No pictures.", "dim")


def _short(path: Path) -> Path:
    """Returns a path relative to the current folder for a terminal, absolute for a pipe."""
    here = Path.cwd()
    return path.relative_to(here) if sys.stdout.isatty() and path.is_relative_to(here) else path


def _percent(entry: Entry) -> str:
    percentile = entry.clip["percentile"] if entry.clip else None
    return "" if percentile is None else percent(percentile)


@app.command("show", cls=Command)
def show(number: Id, json: Json = False) -> None:
    """Show the settings of a picture and the command that draws it."""
    from clipgen import history as store

    with Report(json=json) as report:
        entry = store.get(number)
        report.data = {**entry.to_dict(), "command": command_line(entry.settings)}
        rows = [
            ("path", entry.path),
            ("made", entry.time.astimezone().strftime("%Y-%m-%d %H:%M")),
            ("parent", entry.parent),
        ]
        rows += [(name, value) for name, value in entry.settings.to_dict().items() if value not in (None, "")]
        rows += [(f"clip {name}", value) for name, value in (entry.clip or {}).items() if name != "curve"]
        report.table(("", ""), [*rows, ("command", command_line(entry.settings))])


@app.command("path", cls=Command)
def path(
    number: Annotated[
        int | None,
        typer.Argument(
            metavar="[ID]", help="A picture.", show_default="history.db", autocompletion=complete.ids, parser=ID
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Print the path of a picture, or of the history itself."""
    from clipgen import history as store

    with Report(json=json) as report:
        location = history_path() if number is None else store.get(number).path
        report.data = {"path": str(location)}
        report.result(location)


@app.command("on", cls=Command)
def on(json: Json = False) -> None:
    """Record pictures from now on."""
    _switch(True, json)


@app.command("off", cls=Command)
def off(json: Json = False) -> None:
    """Stop recording pictures; the recorded ones are kept."""
    _switch(False, json)


def _switch(value: bool, json: bool) -> None:
    with Report(json=json) as report:
        config_file.write("history.on", value)
        report.data = {"on": value}
        report.say(f"The history is {'on' if value else 'off'}.")


@app.command("forget", cls=Command)
def forget(
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[ID...]", help="Ids in the list.", parser=ID)] = None,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="Remove all pictures.")] = False,
    json: Json = False,
) -> None:
    """Remove pictures from the history; the files are kept."""
    from clipgen import history as store

    with Report(json=json) as report:
        if everything == bool(numbers):
            raise SettingsError("Name the pictures: clipgen history forget ID..., or clipgen history forget --all")
        count = store.forget_all() if everything else store.forget(numbers or [])
        report.data = {"forgotten": count}
        report.say(f"Removed {count} from the history; the files are kept.")
