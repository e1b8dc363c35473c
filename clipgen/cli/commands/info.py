"""`clipgen info`: shows the settings inside picture files of clipgen and other apps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipgen.cli.output import Report, error_line
from clipgen.errors import ClipgenError
from clipgen.report.command_line import command_line

if TYPE_CHECKING:
    from clipgen.image_file import RestoredSettings


def info(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="PNG, JPEG, WebP.", rich_help_panel="Pictures")],
    command: Annotated[
        bool, typer.Option("--command", metavar="", help="Print only the clipgen command that draws it.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", metavar="", help="Print the metadata texts unchanged.")] = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")] = False,
) -> None:
    """Show the settings inside a picture.

    Reads files of clipgen, A1111, Forge, SD.Next, stable-diffusion.cpp, ComfyUI, InvokeAI and Fooocus.

    clipgen info fox.png
    clipgen info fox.png --command
    """
    with Report(json=json) as report:
        errors: list[ClipgenError] = []
        contents: list[dict[str, Any]] = []
        for name in files:
            try:
                contents.append(_one(report, Path(name), heading=len(files) > 1, command=command, raw=raw))
            except ClipgenError as error:
                errors.append(error)
                if len(files) > 1:
                    report.say(error_line(error))
        report.data = {"files": contents}
        if errors:
            raise (
                errors[0]
                if len(files) == 1
                else type(errors[0])(f"{len(errors)} of {len(files)} files have no settings.")
            )


def _one(report: Report, path: Path, *, heading: bool, command: bool, raw: bool) -> dict[str, Any]:
    """Prints the contents of one file and returns them for the envelope."""
    from clipgen.image_file import read_chunks, read_settings

    if raw:
        texts = read_chunks(path)
        for name, text in texts.items():
            report.result(f"{path}: {name}\n{text}\n" if heading else f"{name}\n{text}\n")
        return {"path": str(path), "raw": texts}
    restored = read_settings(path)
    if command:
        report.result(command_line(restored.settings))
    else:
        _print(report, path, restored, heading)
    return {
        "path": str(path),
        "source": restored.source,
        "settings": restored.settings.to_dict(),
        "command": command_line(restored.settings),
        "unknown": restored.unknown,
        "warnings": [note.to_dict() for note in restored.warnings],
        "record": restored.record,
    }


def _print(report: Report, path: Path, restored: RestoredSettings, heading: bool) -> None:
    rows = [("file", str(path))] if heading else []
    rows += [("made by", restored.source)]
    rows += [(name, value) for name, value in restored.settings.to_dict().items() if value not in (None, "", [])]
    if restored.record and restored.record["clip"]:
        rows += [(f"clip {name}", value) for name, value in restored.record["clip"].items() if name != "curve"]
    if restored.record:
        rows += [(f"SHA-256 of {name}", digest) for name, digest in restored.record["inputs"].items()]
    rows += [(f"not used: {name}", value) for name, value in restored.unknown.items()]
    report.table(("", ""), rows)
    for note in restored.warnings:
        report.warn(note)
