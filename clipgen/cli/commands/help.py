"""`clipgen help [COMMAND]`: prints the help page of clipgen or of one command."""

from __future__ import annotations

from typing import Annotated

import typer

from clipgen.cli.group import print_help_of


def help_(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND...]", help="A command, for example: history list.", show_default=False),
    ] = None,
) -> None:
    """Show the help of a command.

    clipgen help generate
    clipgen help models pull
    """
    print_help_of(context, words or [])
