"""`clipgen config`: shows and changes the user's config.toml."""

from __future__ import annotations

from typing import Annotated

import typer

from clipgen.cli import config_file, layers
from clipgen.cli.group import Command, Group
from clipgen.cli.output import Report
from clipgen.cli.resolve import origin, surroundings
from clipgen.home import config_path
from clipgen.settings.settings import FIELDS

app = typer.Typer(cls=Group)
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")]
Key = Annotated[
    str, typer.Argument(metavar="KEY", help="A Settings field, or table.key.", autocompletion=lambda: config_file.KEYS)
]


@app.callback(invoke_without_command=True)
def config(context: typer.Context, json: Json = False) -> None:
    """Show and change your defaults in config.toml.

    clipgen config set steps 40
    clipgen config set output.format jpeg
    clipgen config get steps
    """
    if context.invoked_subcommand is None:
        show(json=json)


@app.command("show", cls=Command)
def show(json: Json = False) -> None:
    """List all values from files and the environment."""
    with Report(json=json) as report:
        merged = layers.resolve(surroundings(report))
        rows = [(name, merged.values[name], origin(name, merged)) for name in FIELDS if name in merged.values]
        rows += [(key, value, "config.toml") for key, value in config_file.read_user().tables.items()]
        report.data = {name: {"value": value, "from": origin} for name, value, origin in rows}
        report.table(("key", "value", "from"), rows)
        if not rows:
            report.say("Nothing is set. Example: clipgen config set steps 40", "dim")


@app.command("path", cls=Command)
def path(json: Json = False) -> None:
    """Print the path of config.toml."""
    with Report(json=json) as report:
        report.data = {"path": str(config_path())}
        report.result(config_path())


@app.command("get", cls=Command)
def get(key: Key, json: Json = False) -> None:
    """Print the value of a key; nothing if it is not set."""
    with Report(json=json) as report:
        config_file.check_key(key)
        user = config_file.read_user()
        value = {**user.settings, **user.tables}.get(key)
        report.data = {"key": key, "value": value}
        if value is not None:
            report.result(config_file.to_text(value))


@app.command("set", cls=Command)
def set_(
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="As for the option; none removes the key.")],
    json: Json = False,
) -> None:
    """Set a key of config.toml; comments and other keys are kept."""
    with Report(json=json) as report:
        parsed = config_file.parse(key, value)
        config_file.write(key, parsed)
        report.data = {"key": key, "value": parsed, "path": str(config_path())}
        report.say(f"{key} is {'not set' if parsed is None else config_file.to_text(parsed)} in {config_path()}")
