"""How clipgen reads its first word: a command if there is one of that name, else a prompt to draw."""

from __future__ import annotations

import shlex
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from clipgen.cli.help import print_help
from clipgen.errors import SettingsError

DEFAULT = "generate"


class Command(TyperCommand):
    """A command with clipgen's help page, which refuses surplus words by showing how to draw them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help page."""
        print_help(self, ctx)

    def get_help_option(self, ctx: Any) -> Any:
        """Returns --help, off by default."""
        return _off(super().get_help_option(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses as typer does; raises SettingsError for words that the command does not take."""
        ctx.allow_extra_args = True
        surplus = super().parse_args(ctx, list(args))
        if surplus and not ctx.resilient_parsing:
            raise surplus_words(ctx, surplus)
        return surplus


class Group(TyperGroup):
    """A command with commands of its own; the words after it must name one of them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help page."""
        print_help(self, ctx)

    def get_help_option(self, ctx: Any) -> Any:
        """Returns --help, off by default."""
        return _off(super().get_help_option(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the command that the first word names; raises SettingsError, showing how to draw the words."""
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise surplus_words(ctx, args, tuple(self.commands))
        return super().resolve_command(ctx, args)


DRAWING = ("generate", "again", "vary", "batch", "compare", "ui")
LOOKING = ("score", "rank", "classify", "caption", "explain", "search")
UPKEEP = ("models", "doctor", "config", "completion", "train", "bench")
ORDER = (*DRAWING, *LOOKING, "info", "history", "presets", *UPKEEP)


class Root(Group):
    """The clipgen command itself: `generate` is understood unless the first argument is a command or a group option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Prepends `generate` where needed; no arguments at all mean `--help`."""
        return super().parse_args(ctx, self.with_command(args) if not ctx.resilient_parsing or args else args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the commands in the order of the help page."""
        return sorted(self.commands, key=ORDER.index)

    def with_command(self, args: list[str]) -> list[str]:
        """Returns the arguments with their command in front."""
        if not args:
            return ["--help"]
        options = {name for option in self.params for name in option.opts} | {"--help", "-h"}
        return args if args[0] in self.commands or args[0] in options else [DEFAULT, *args]

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Completes commands and, for a word that starts with `-`, the flags of `generate` too."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            command = self.commands[DEFAULT]
            with command.make_context(DEFAULT, [], parent=ctx, resilient_parsing=True) as inner:
                found += [item for item in command.shell_complete(inner, incomplete) if item.value != "--help"]
        return found


def _off(option: Any) -> Any:
    """Gives a switch the default False; None would make typer import pydantic, .15 s, to turn it into a bool."""
    option.default = False
    return option


def surplus_words(ctx: typer.Context, words: list[str], known: tuple[str, ...] = ()) -> SettingsError:
    """Returns the error for words after a command that takes none: exit 2, with the line that would draw them."""
    path = ctx.command_path.split()[1:]
    what = f"'{' '.join(path)}' has no '{words[0]}'" if known else f"'{' '.join(path)}' takes no '{' '.join(words)}'"
    choices = f" Commands: {', '.join(known)}." if known else ""
    return SettingsError(f"{what}.{choices} To draw these words: clipgen generate {shlex.join([*path, *words])}")
