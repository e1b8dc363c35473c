"""`clipgen vary`: draws variations of pictures from their CLIP image features."""

from __future__ import annotations

from typing import Annotated

import typer

from clipgen.cli import execute
from clipgen.cli.flags import WHICH, Flags, takes_flags
from clipgen.cli.output import Report
from clipgen.cli.resolve import check_flags, plan


@takes_flags(without=("vary", "prompt_template"))
def vary(
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Pictures; IMAGE:0.5 mixes the picture half and half with the prompt.",
            rich_help_panel=WHICH,
            show_default=False,
        ),
    ],
    *,
    flags: Flags,
) -> None:
    """Draw variations of pictures; prints the path of each.

    clipgen vary fox.png -n 4                      four variations
    clipgen vary fox.png:0.5 -p "an owl at night"  half the picture, half the prompt
    clipgen vary fox.png -n 8 --keep 2             the two most similar of eight
    """
    options = flags.options
    with Report(json=options.json, quiet=options.quiet, verbose=options.verbose) as report:
        check_flags(flags)
        runs = plan(flags, flags.prompts, [], report, pictures)
        execute.execute_plan(runs, options, report)
