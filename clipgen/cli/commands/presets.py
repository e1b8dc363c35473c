"""`clipgen presets`: lists, shows and checks presets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipgen.cli import complete
from clipgen.cli.group import Command, Group
from clipgen.cli.output import Report

if TYPE_CHECKING:
    from clipgen.settings.preset import Preset

app = typer.Typer(cls=Group)
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A preset.", autocompletion=complete.presets)]


@app.callback(invoke_without_command=True)
def presets(context: typer.Context, json: Json = False) -> None:
    """Named styles and settings: list, show, check.

    clipgen presets list
    clipgen "a fox in snow" --preset NAME
    """
    if context.invoked_subcommand is None:
        list_(json=json)


@app.command("list", cls=Command)
def list_(json: Json = False) -> None:
    """List your own and the bundled presets."""
    from clipgen.settings.preset import list_presets

    with Report(json=json) as report:
        rows = [(preset.name, _source(preset), preset.about) for preset in list_presets()]
        report.data = {"presets": [{"name": name, "from": source, "about": about} for name, source, about in rows]}
        report.table(("name", "from", "about"), rows)


def _source(preset: Preset) -> str:
    yours = "yours, instead of the bundled one" if preset.overrides else "yours"
    return yours if preset.source == "user" else preset.source


@app.command("show", cls=Command)
def show(name: Name, json: Json = False) -> None:
    """Show what a preset sets."""
    from clipgen.settings.preset import load_preset

    with Report(json=json) as report:
        preset = load_preset(name)
        style = {"style prompt": preset.style_prompt, "style negative_prompt": preset.style_negative_prompt}
        rows = {"title": preset.title, "about": preset.about, "file": str(preset.path), **preset.settings, **style}
        report.data = {"name": preset.name, "source": preset.source, **rows}
        report.table(("", ""), [(key, value) for key, value in rows.items() if value is not None])


@app.command("check", cls=Command)
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A preset file, or a preset's name.")], json: Json = False
) -> None:
    """Check a preset file; exits with code 2 and the first error if it is invalid."""
    from clipgen.settings.preset import load_preset, read_preset

    with Report(json=json) as report:
        path = Path(file)
        preset = read_preset(path) if path.suffix == ".toml" else load_preset(file)
        report.data = {"name": preset.name, "ok": True}
        report.result(f"{preset.name}: valid")
