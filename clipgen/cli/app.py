"""The clipgen command: its commands in order, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import IO, Annotated

import typer
from typer._click.exceptions import UsageError

from clipgen.cli.commands import (
    again,
    batch,
    bench,
    caption,
    classify,
    compare,
    completion,
    config,
    doctor,
    explain,
    generate,
    history,
    info,
    models,
    presets,
    rank,
    score,
    search,
    train,
    ui,
    vary,
)
from clipgen.cli.group import Command, Root
from clipgen.cli.output import Report
from clipgen.errors import ClipgenError, SettingsError

DRAW, JUDGE, LOOK_UP, SET_UP = "Draw", "Ask CLIP", "Look up", "Set up"

app = typer.Typer(cls=Root, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
for name, run, panel in (
    ("generate", generate.generate, DRAW),
    ("again", again.again, DRAW),
    ("vary", vary.vary, DRAW),
    ("batch", batch.batch, DRAW),
    ("compare", compare.compare, DRAW),
    ("ui", ui.ui, DRAW),
    ("score", score.score, JUDGE),
    ("rank", rank.rank, JUDGE),
    ("classify", classify.classify, JUDGE),
    ("caption", caption.caption, JUDGE),
    ("explain", explain.explain, JUDGE),
    ("search", search.search, JUDGE),
    ("info", info.info, LOOK_UP),
):
    app.command(name, cls=Command, rich_help_panel=panel)(run)
app.add_typer(history.app, name="history", rich_help_panel=LOOK_UP)
app.add_typer(presets.app, name="presets", rich_help_panel=LOOK_UP)
app.add_typer(models.app, name="models", rich_help_panel=LOOK_UP)
app.command("doctor", cls=Command, rich_help_panel=SET_UP)(doctor.doctor)
app.add_typer(config.app, name="config", rich_help_panel=SET_UP)
app.command("completion", cls=Command, rich_help_panel=SET_UP)(completion.completion)
app.add_typer(train.app, name="train", rich_help_panel=SET_UP)
app.add_typer(bench.app, name="bench", rich_help_panel=SET_UP)


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(f"clipgen {importlib.metadata.version('clipgen')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Draw what you type, on this machine, without the network.

    clipgen "a fox in snow"                    one picture, its path on stdout
    clipgen "a fox in snow" -n 4 -s 7          four, seeds 7 to 10
    clipgen again --change steps=40            the last one once more, changed
    clipgen generate --help                    every flag
    """


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; a reader that closes stdout early is no error."""
    words = list(sys.argv[1:] if args is None else args)
    _speak_utf8(sys.stdout, sys.stderr)
    try:
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _speak_utf8(*streams: IO[str]) -> None:
    """Makes the streams write UTF-8, and file names that are not UTF-8 as the bytes they are."""
    for stream in streams:
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[attr-defined]


@cache
def command() -> Root:
    """Returns the command with everything under it; building it takes 30 ms."""
    built = typer.main.get_command(app)
    assert isinstance(built, Root)
    return built


def _run(words: list[str]) -> int:
    if "_CLIPGEN_COMPLETE" in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
        command().main(words, prog_name="clipgen")
    try:
        with command().make_context("clipgen", words) as context:
            command().invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except (ClipgenError, typer.TyperException) as error:
        return _refused(words, error)
    except KeyboardInterrupt:
        return 130
    return 0


def _refused(words: list[str], error: ClipgenError | typer.TyperException) -> int:
    """Reports a command line that could not be read: one line, and the envelope if --json was asked for."""
    before_end = words[: words.index("--")] if "--" in words else words
    refusal = error if isinstance(error, ClipgenError) else SettingsError(_sentence(error))
    try:
        with Report(json="--json" in before_end):
            raise refusal
    except typer.Exit as end:
        return end.exit_code


def _sentence(error: typer.TyperException) -> str:
    """Returns a usage error of typer in the form of our own."""
    place = error.ctx.command_path if isinstance(error, UsageError) and error.ctx else "clipgen"
    return f"{' '.join(error.format_message().split()).rstrip('.')}. Flags: {place} --help"
