"""`clipgen generate`, the default command: draws pictures from prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipgen.cli import execute
from clipgen.cli.flags import LOOK, PICTURE, Flags, takes_flags
from clipgen.cli.group import IMPLIED
from clipgen.cli.mistaken_words import refuse_mistaken_words
from clipgen.cli.output import Report
from clipgen.cli.prompts import read_prompts
from clipgen.cli.resolve import check_flags, from_file, plan


@takes_flags()
def generate(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT...",
            help="What to draw; - reads it from stdin.",
            rich_help_panel=PICTURE,
            show_default=False,
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="FILE", help="Use the settings of a picture or TOML file.", rich_help_panel=LOOK
        ),
    ] = None,
    *,
    flags: Flags,
) -> None:
    """Draw pictures from prompts; prints the path of each.

    clipgen "a fox in snow" -n 4 --keep 1          the best of four
    clipgen "a fox" "an owl" --seed 1,2,5-8        each prompt with each seed
    clipgen "a (red:1.3) {fox|owl}" --no blurry    weights, choices, what to avoid
    clipgen "a fox" -o fox.jpg --size 256x128      one file, another shape
    """
    options = flags.options
    with Report(json=options.json, quiet=options.quiet, verbose=options.verbose) as report:
        if context.meta.get(IMPLIED):
            refuse_mistaken_words(words or (), context.find_root().command.commands)  # type: ignore[attr-defined]
        prompts, notes = read_prompts(words or (), flags.prompts)
        for note in notes:
            report.note(note)
        check_flags(flags)
        restored, parent = from_file(Path(from_), report, flags.fields) if from_ else (None, None)
        runs = plan(flags, prompts, [restored] if restored else [], report)
        execute.execute_plan(runs, options, report, parent=parent)
