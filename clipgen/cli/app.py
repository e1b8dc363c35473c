"""The command `clipgen`: registers the commands and turns errors into exit codes."""

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
    help,
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
    version,
)
from clipgen.cli.group import Command, Root
from clipgen.cli.libraries import silence_libraries
from clipgen.cli.output import Report
from clipgen.errors import ClipgenError, SettingsError

DRAW, ASK_CLIP, LOOK_UP, SET_UP = "Draw", "Ask CLIP", "Look up", "Set up"

app = typer.Typer(cls=Root, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
for name, function, panel in (
    ("generate", generate.generate, DRAW),
    ("again", again.again, DRAW),
    ("vary", vary.vary, DRAW),
    ("batch", batch.batch, DRAW),
    ("compare", compare.compare, DRAW),
    ("ui", ui.ui, DRAW),
    ("score", score.score, ASK_CLIP),
    ("rank", rank.rank, ASK_CLIP),
    ("classify", classify.classify, ASK_CLIP),
    ("caption", caption.caption, ASK_CLIP),
    ("explain", explain.explain, ASK_CLIP),
    ("search", search.search, ASK_CLIP),
    ("info", info.info, LOOK_UP),
    ("doctor", doctor.doctor, SET_UP),
    ("completion", completion.completion, SET_UP),
    ("help", help.help_, SET_UP),
    ("version", version.version, SET_UP),
):
    app.command(name, cls=Command, rich_help_panel=panel)(function)
app.add_typer(history.app, name="history", rich_help_panel=LOOK_UP)
app.add_typer(presets.app, name="presets", rich_help_panel=LOOK_UP)
app.add_typer(models.app, name="models", rich_help_panel=LOOK_UP)
app.add_typer(config.app, name="config", rich_help_panel=SET_UP)
app.add_typer(train.app, name="train", rich_help_panel=SET_UP)
app.add_typer(bench.app, name="bench", rich_help_panel=SET_UP)


def _print_version(value: bool) -> None:
    if value:
        version.version()
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Draw pictures from text, on this machine, without the network.

    clipgen "a fox in snow"                    one picture; prints its path
    clipgen "a fox in snow" -n 4 -s 7          four pictures, with seeds 7 to 10
    clipgen again --change steps=40            the last picture with another setting
    clipgen generate --help                    the options
    """


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; 0 if the reader of stdout closes the pipe early."""
    words = list(sys.argv[1:] if args is None else args)
    _use_utf8(sys.stdout, sys.stderr)
    silence_libraries()
    try:
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _use_utf8(*streams: IO[str]) -> None:
    """Sets the encoding of streams to UTF-8; file names that are not UTF-8 keep their bytes."""
    for stream in streams:
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[attr-defined]


@cache
def command() -> Root:
    """Returns the command with all subcommands; it takes 30 ms to build."""
    built = typer.main.get_command(app)
    assert isinstance(built, Root)
    return built


def _run(words: list[str]) -> int:
    if "_CLIPGEN_COMPLETE" in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
        command().main(words, prog_name="clipgen")
    try:
        with command().make_context("clipgen", words) as context:
            command().invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except (ClipgenError, typer.TyperException) as error:
        return _report_usage_error(words, error)
    except KeyboardInterrupt:
        return 130
    return 0


def _report_usage_error(words: list[str], error: ClipgenError | typer.TyperException) -> int:
    """Prints the error of a command line that cannot be parsed, and the envelope if it contains --json."""
    before_end = words[: words.index("--")] if "--" in words else words
    usage_error = error if isinstance(error, ClipgenError) else SettingsError(_message(error))
    try:
        with Report(json="--json" in before_end):
            raise usage_error
    except typer.Exit as end:
        return end.exit_code


def _message(error: typer.TyperException) -> str:
    """Returns the message of one of typer's errors, followed by the command that lists the options."""
    place = error.ctx.command_path if isinstance(error, UsageError) and error.ctx else "clipgen"
    return f"{' '.join(error.format_message().split()).rstrip('.')}. Options: {place} --help"
