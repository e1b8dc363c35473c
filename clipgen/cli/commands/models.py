"""`clipgen models`: lists, checks and downloads models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipgen.cli import complete
from clipgen.cli.group import Command, Group
from clipgen.cli.output import Report
from clipgen.cli.progress import Bar

if TYPE_CHECKING:
    from clipgen.models import ModelFolder

app = typer.Typer(cls=Group)
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")]
Offline = Annotated[bool, typer.Option("--offline", metavar="", help="Never use the network.")]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="storybook, org/name, ./folder or a file.", autocompletion=complete.models)
]


@app.callback(invoke_without_command=True)
def models(context: typer.Context, json: Json = False) -> None:
    """Models: list, families, show, check, pull.

    clipgen models list
    clipgen models check ./my-model
    clipgen models show storybook --words
    clipgen "a fox in snow" --model ./my-model
    """
    if context.invoked_subcommand is None:
        list_(json=json)


@app.command("list", cls=Command)
def list_(json: Json = False) -> None:
    """List the models on this machine: the bundled one and those in the hub cache."""
    from clipgen.models import list_models

    with Report(json=json) as report:
        models = [(model, _family(model)) for model in list_models()]
        rows = [(m.name, m.kind, _megabytes(m.path), m.path, family or "not supported") for m, family in models]
        report.data = {"models": [_to_json(model, family) for model, family in models], "families": _families()}
        report.table(("name", "from", "size", "path", "family"), rows)
        report.say("Supported families: clipgen models families", "dim")


@app.command("families", cls=Command)
def families(json: Json = False) -> None:
    """List the supported model families, their pipeline classes and what guidance_scale does."""
    with Report(json=json) as report:
        report.data = {"families": _families()}
        rows = [[", ".join(v) if isinstance(v, list) else v for v in each.values()] for each in _families()]
        report.table(("family", "pipeline classes", "predicts", "guidance"), rows)


@app.command("show", cls=Command)
def show(
    name: Name,
    words: Annotated[
        bool, typer.Option("--words", metavar="", help="List the things, places, styles and other words it knows.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the path, the hash and the recommended settings of a local model."""
    from clipgen.cli.resolve import own_defaults
    from clipgen.models import find_model

    with Report(json=json) as report:
        if words:
            _show_words(name, report)
            return
        model = find_model(name)
        rows: dict[str, Any] = {"name": model.name, "from": model.kind, "path": str(model.path), "hash": model.hash}
        place = model.weights or model.path
        report.data = {**rows, "path": str(place), "bytes": _size(place), "settings": own_defaults(name)}
        report.table(("", ""), [*rows.items(), ("size", _megabytes(place)), *own_defaults(name).items()])


def _show_words(name: str, report: Report) -> None:
    """Prints the words of a model's vocabulary, a paragraph of 80 columns per kind."""
    from textwrap import fill

    from clipgen.errors import ModelError
    from clipgen.models import known_words

    words = known_words(name, offline=True)
    if not words:
        raise ModelError(f"Model '{name[:200]}' has no list of words. Example: clipgen models show storybook --words")
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
        bool, typer.Option("--verify", metavar="", help="Also compare every file with SHA256SUMS.")
    ] = False,
    json: Json = False,
) -> None:
    """Check the files of a local model; exits with code 1 and the first error if they are invalid."""
    from clipgen.models import find_model

    with Report(json=json) as report:
        model = find_model(name)
        from clipgen.families import LAYOUTS
        from clipgen.models import preflight
        from clipgen.models import verify as verify_sums

        checked = preflight(model, LAYOUTS)
        count = verify_sums(model) if verify else 0
        networks = ", ".join(checked.networks)
        report.data = {"name": model.name, "family": checked.layout.family, "ok": True, "verified": count}
        report.result(
            f"{model.name}: valid ({checked.layout.family}: {networks})" + f", {count} files verified" * bool(count)
        )


@app.command("pull", cls=Command)
def pull(name: Name, offline: Offline = False, json: Json = False) -> None:
    """Download a model, a CLIP or a VAE from the hub; afterwards it works offline."""
    from clipgen.models import find_model, parse_id

    with Report(json=json) as report:
        if offline or parse_id(name).kind != "hub":
            path = find_model(name).path
        else:
            from clipgen.families.fetch import fetch_any

            with Bar(0, report) as bar:
                bar.loading(f"Fetching {name}")
                path = fetch_any(name)
        report.data = {"name": name, "path": str(path), "bytes": _size(path)}
        report.result(path)


def _to_json(model: ModelFolder, family: str | None) -> dict[str, Any]:
    path = model.path
    return {"name": model.name, "kind": model.kind, "family": family, "bytes": _size(path), "path": str(path)}


def _family(model: ModelFolder) -> str | None:
    """Returns the family of a model according to its model_index.json, None if it is not supported."""
    from clipgen.errors import ModelError
    from clipgen.families import LAYOUTS
    from clipgen.models import read_json

    try:
        layout = LAYOUTS.get(str(read_json(model.path / "model_index.json").get("_class_name")))
    except ModelError:
        return None
    return layout.family if layout else None


def _families() -> list[dict[str, Any]]:
    """Returns each family: its diffusers pipeline classes, prediction types, and the effect of guidance_scale."""
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
    """Returns the total size of a model's files in bytes; a single file is its own size."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(folder: Path) -> str:
    return f"{_size(folder) / 1e6:,.0f} MB"
