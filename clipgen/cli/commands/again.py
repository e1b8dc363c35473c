"""`clipgen again`: draws an earlier picture again, with changed settings if the user wants."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from clipgen.cli import complete, execute
from clipgen.cli.flags import WHICH, Flags, takes_flags
from clipgen.cli.layers import Layer
from clipgen.cli.numbers import whole
from clipgen.cli.output import Report
from clipgen.cli.resolve import check_flags, from_file, plan
from clipgen.errors import ClipgenError, SettingsError
from clipgen.report.command_line import command_line
from clipgen.settings.checks import unknown_name
from clipgen.settings.settings import FIELDS, coerce


@takes_flags()
def again(
    picture: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE or ID]",
            help="A picture, or its history id.",
            rich_help_panel=WHICH,
            autocompletion=complete.ids,
            show_default="the last picture",
        ),
    ] = None,
    back: Annotated[
        int | None,
        typer.Option(
            "--back",
            metavar="N",
            help="The Nth picture before the last one.",
            parser=whole("back", 0),
            rich_help_panel=WHICH,
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--change", metavar="FIELD=VALUE", help="Change a setting; repeatable.", rich_help_panel=WHICH),
    ] = None,
    *,
    flags: Flags,
) -> None:
    """Draw an earlier picture again, with other settings if you like.

    clipgen again                              the last picture, unchanged
    clipgen again --change steps=40            the last picture with 40 steps
    clipgen again fox.png --seed 1-4           the settings of a file with other seeds
    """
    options = flags.options
    with Report(json=options.json, quiet=options.quiet, verbose=options.verbose) as report:
        check_flags(flags)
        changes = _changes(change or [])
        if picture is not None and back is not None:
            raise SettingsError("A picture and --back exclude each other", field="back")
        restored, parent = _restored(picture, back or 0, report, {*flags.fields, *changes})
        runs = plan(flags, flags.prompts, [*([Layer("--change", changes)] if changes else []), restored], report)
        for run in runs:
            report.say(command_line(run.settings()), "dim")
        execute.execute_plan(runs, options, report, parent=parent)


def _restored(picture: str | None, back: int, report: Report, typed: Collection[str]) -> tuple[Layer, int | None]:
    """Returns the layer of the picture and its history id; `typed` are the fields that override the picture."""
    from clipgen import history

    if picture is not None and not picture.isdigit():
        return from_file(Path(picture), report, typed)
    entry = history.last(back) if picture is None else history.get(int(picture))
    if entry is None:
        raise ClipgenError("The history has no such picture. Name a file: clipgen again FILE")
    return Layer(f"picture {entry.id}", entry.settings.to_dict(), replay=True), entry.id


def _changes(texts: list[str]) -> dict[str, Any]:
    """Returns the values of `--change field=value`; raises SettingsError."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise SettingsError(f"--change takes field=value, got '{text}'", field="change")
        if name not in FIELDS:
            raise SettingsError(unknown_name("setting", name, FIELDS), field="change", allowed=FIELDS)
        values[name] = coerce(name, value)
    return values
