"""`clipgen models`: what is on this machine, whether a model's files are sound, and fetching one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipgen.cli import complete
from clipgen.cli.execute import configure_hub_progress, require_model
from clipgen.cli.group import Command, Group
from clipgen.cli.output import Report

if TYPE_CHECKING:
    from clipgen.models import ModelFolder

app = typer.Typer(cls=Group)
Json = Annotated[bool, typer.Option("--json", metavar="", help="One JSON object.")]
Offline = Annotated[bool, typer.Option("--offline", metavar="", help="Make no network attempt.")]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="storybook, org/name or ./folder.", autocompletion=complete.models)
]


@app.callback(invoke_without_command=True)
def models(context: typer.Context, json: Json = False) -> None:
    """Models: list, families, show, check, pull.

    clipgen models list
    clipgen models check ./my-model
    clipgen "a fox in snow" --model ./my-model
    """
    if context.invoked_subcommand is None:
        list_(json=json)


@app.command("list", cls=Command)
def list_(json: Json = False) -> None:
    """List the models on this machine, the bundled one and the hub's cache, and the family that draws each."""
    from clipgen.models import list_models

    with Report(json=json) as report:
        found = [(model, _family(model)) for model in list_models()]
        rows = [(m.name, m.kind, _megabytes(m.path), m.path, family or "not supported") for m, family in found]
        report.data = {"models": [_told(model, family) for model, family in found], "families": _families()}
        report.table(("name", "from", "size", "path", "family"), rows)
        report.say("What works: clipgen models families", "dim")


@app.command("families", cls=Command)
def families(json: Json = False) -> None:
    """List the families of models that work, their pipeline classes, and what guidance_scale does in each."""
    with Report(json=json) as report:
        report.data = {"families": _families()}
        rows = [[", ".join(v) if isinstance(v, list) else v for v in each.values()] for each in _families()]
        report.table(("family", "pipeline classes", "predicts", "guidance"), rows)


@app.command("show", cls=Command)
def show(
    name: Name,
    words: Annotated[
        bool, typer.Option("--words", metavar="", help="The things, places, styles and other words that it knows.")
    ] = False,
    json: Json = False,
) -> None:
    """Show where a model lies, its hash and what it recommends; nothing is fetched."""
    from clipgen.cli.resolve import own_defaults
    from clipgen.models import find_model

    with Report(json=json) as report:
        if words:
            _show_words(name, report)
            return
        found = find_model(name, offline=True)
        rows: dict[str, Any] = {"name": found.name, "from": found.kind, "path": str(found.path), "hash": found.hash}
        report.data = {**rows, "bytes": _size(found.path), "settings": own_defaults(name)}
        report.table(("", ""), [*rows.items(), ("size", _megabytes(found.path)), *own_defaults(name).items()])


def _show_words(name: str, report: Report) -> None:
    """Prints the words of a model's vocabulary in paragraphs of 80 columns, a kind each."""
    from textwrap import fill

    from clipgen.errors import ModelError
    from clipgen.models import known_words

    words = known_words(name, offline=True)
    if not words:
        raise ModelError(f"Model '{name[:200]}' lists no words. storybook does: clipgen models show storybook --words")
    report.data = {"name": name, "words": words}
    for kind, names in words.items():
        entries = [name if not others else f"{name} ({', '.join(others)})" for name, others in names.items()]
        text = ", ".join(entries)
        indent = " " * 2
        report.result(f"{len(names)} {kind}")
        report.result(fill(text, 80, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False))


@app.command("check", cls=Command)
def check(
    name: Name,
    verify: Annotated[
        bool, typer.Option("--verify", metavar="", help="Compare every file with the model's SHA256SUMS.")
    ] = False,
    json: Json = False,
) -> None:
    """Check a model's files as it is done before loading; exit 1 and the first fault if they are refused."""
    from clipgen.models import find_model

    with Report(json=json) as report:
        found = find_model(name, offline=True)
        from clipgen.families import LAYOUTS
        from clipgen.models import preflight
        from clipgen.models import verify as verify_sums

        checked = preflight(found, LAYOUTS)
        count = verify_sums(found) if verify else 0
        networks = ", ".join(checked.networks)
        report.data = {"name": found.name, "family": checked.layout.family, "ok": True, "verified": count}
        report.result(
            f"{found.name}: good ({checked.layout.family}: {networks})" + f", {count} files verified" * bool(count)
        )


@app.command("pull", cls=Command)
def pull(name: Name, offline: Offline = False, json: Json = False) -> None:
    """Fetch a model from the hub, so that it works offline from then on."""
    with Report(json=json) as report:
        configure_hub_progress(report)
        found = require_model(name, offline=offline)
        report.data = {"name": found.name, "path": str(found.path), "bytes": _size(found.path)}
        report.result(found.path)


def _told(model: ModelFolder, family: str | None) -> dict[str, Any]:
    path = model.path
    return {"name": model.name, "kind": model.kind, "family": family, "bytes": _size(path), "path": str(path)}


def _family(model: ModelFolder) -> str | None:
    """Returns the family that draws a model, by its model_index.json; None if none does."""
    from clipgen.errors import ModelError
    from clipgen.families import LAYOUTS
    from clipgen.models import read_json

    try:
        layout = LAYOUTS.get(str(read_json(model.path / "model_index.json").get("_class_name")))
    except ModelError:
        return None
    return layout.family if layout else None


def _families() -> list[dict[str, Any]]:
    """Returns of each family its name, the diffusers pipelines it draws, what they predict, and their guidance."""
    from clipgen.families import FAMILIES

    return [
        {
            "family": name,
            "classes": list(layout.pipeline_classes),
            "predictions": list(layout.predictions),
            "guidance": layout.guidance,
        }
        for name, (layout, _) in FAMILIES.items()
    ]


def _size(folder: Path) -> int:
    """Returns the bytes of a model's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(folder: Path) -> str:
    return f"{_size(folder) / 1e6:,.0f} MB"
