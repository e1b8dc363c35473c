"""`clipgen models`: what is on this machine, whether a model's files are sound, and fetching one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clipgen.cli import complete
from clipgen.cli.draw import find, quiet_hub
from clipgen.cli.group import Command, Group
from clipgen.cli.report import Report

app = typer.Typer(cls=Group)
Json = Annotated[bool, typer.Option("--json", metavar="", help="One JSON object.")]
Offline = Annotated[bool, typer.Option("--offline", metavar="", help="Make no network attempt.")]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="storybook, org/name or ./folder.", autocompletion=complete.models)
]


@app.callback(invoke_without_command=True)
def models(context: typer.Context, json: Json = False) -> None:
    """Models: list, show, check, pull.

    clipgen models list
    clipgen models check ./my-model
    clipgen "a fox in snow" --model ./my-model
    """
    if context.invoked_subcommand is None:
        list_(json=json)


@app.command("list", cls=Command)
def list_(json: Json = False) -> None:
    """List the models on this machine, the bundled one and the hub's cache."""
    from clipgen.models import list_models

    with Report(json=json) as report:
        found = list_models()
        rows = [(model.name, model.kind, _megabytes(model.path), model.path) for model in found]
        report.data = {"models": [{"name": n, "kind": k, "bytes": _size(p), "path": str(p)} for n, k, _, p in rows]}
        report.table(("name", "from", "size", "path"), rows)


@app.command("show", cls=Command)
def show(name: Name, json: Json = False) -> None:
    """Show where a model lies, its hash and what it recommends; nothing is fetched."""
    from clipgen.cli.plan import own_defaults
    from clipgen.models import find_model

    with Report(json=json) as report:
        found = find_model(name, offline=True)
        rows: dict[str, Any] = {"name": found.name, "from": found.kind, "path": str(found.path), "hash": found.hash}
        report.data = {**rows, "bytes": _size(found.path), "settings": own_defaults(name)}
        report.table(("", ""), [*rows.items(), ("size", _megabytes(found.path)), *own_defaults(name).items()])


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
        quiet_hub(report)
        found = find(name, offline=offline)
        report.data = {"name": found.name, "path": str(found.path), "bytes": _size(found.path)}
        report.result(found.path)


def _size(folder: Path) -> int:
    """Returns the bytes of a model's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(folder: Path) -> str:
    return f"{_size(folder) / 1e6:,.0f} MB"
