"""Command classes: the first word of a command line is a command if one has that name, else a prompt for `generate`."""

from __future__ import annotations

import shlex
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from clipgen.cli.help import print_help
from clipgen.errors import SettingsError

DEFAULT = "generate"
IMPLIED = "clipgen.implied"  # key of Context.meta: the user did not type `generate`, nor `--` before the words


class Command(TyperCommand):
    """A command with clipgen's help page. It refuses words that it does not take and shows how to draw them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help page."""
        print_help(self, ctx)

    def get_help_option(self, ctx: Any) -> Any:
        """Returns the option --help."""
        return _with_false_default(super().get_help_option(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments as typer does; raises SettingsError for words that the command does not take."""
        ctx.allow_extra_args = True
        extra = super().parse_args(ctx, list(args))
        if extra and not ctx.resilient_parsing:
            raise extra_words_error(ctx, extra)
        return extra


class Group(TyperGroup):
    """A command with subcommands; the word after it must name one of them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help page."""
        print_help(self, ctx)

    def get_help_option(self, ctx: Any) -> Any:
        """Returns the option --help."""
        return _with_false_default(super().get_help_option(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the subcommand that the first word names; raises SettingsError if no command has that name."""
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise extra_words_error(ctx, args, tuple(self.commands))
        return super().resolve_command(ctx, args)


DRAW = ("generate", "again", "vary", "batch", "compare", "ui")
ASK_CLIP = ("score", "rank", "classify", "caption", "explain", "search")
SET_UP = ("doctor", "config", "completion", "train", "bench", "help", "version")
ORDER = (*DRAW, *ASK_CLIP, "info", "history", "presets", "models", *SET_UP)


class Root(Group):
    """The command `clipgen`. It runs `generate` unless the first argument is a command or an option of `clipgen`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Inserts `generate` if the user left it out; without arguments it prints the help page."""
        if ctx.resilient_parsing and not args:
            return super().parse_args(ctx, args)
        full = self.with_command(args)
        ctx.meta[IMPLIED] = len(full) > len(args) > 0 and "--" not in args
        return super().parse_args(ctx, full)

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the commands in the order of the help page."""
        return sorted(self.commands, key=ORDER.index)

    def with_command(self, args: list[str]) -> list[str]:
        """Returns the arguments with a command or a root option in front."""
        if not args:
            return ["--help"]
        options = {name for option in self.params for name in option.opts} | {"--help", "-h"}
        return args if args[0] in self.commands or args[0] in options else [DEFAULT, *args]

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Completes commands and, for a word that starts with `-`, also the options of `generate`."""
        items = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            command = self.commands[DEFAULT]
            with command.make_context(DEFAULT, [], parent=ctx, resilient_parsing=True) as inner:
                items += [item for item in command.shell_complete(inner, incomplete) if item.value != "--help"]
        return items


def _with_false_default(option: Any) -> Any:
    """Returns a switch with default False; for None typer imports pydantic (0.15 s) to convert it to bool."""
    option.default = False
    return option


def print_help_of(ctx: typer.Context, words: list[str]) -> None:
    """Prints the help page of the command that the words name, of clipgen itself without words.

    Raises SettingsError for a command that does not exist.
    """
    command, inner = ctx.find_root().command, ctx.find_root()
    for word in words:
        children = command.commands if isinstance(command, TyperGroup) else {}
        if word not in children:
            raise extra_words_error(ctx, words, tuple(children))
        command = children[word]
        inner = type(ctx)(command, parent=inner, info_name=word)
    print_help(command, inner)
    print()


def extra_words_error(ctx: typer.Context, words: list[str], subcommands: tuple[str, ...] = ()) -> SettingsError:
    """Returns the error for words that a command does not take; its message says how to draw them."""
    path = ctx.command_path.split()[1:]
    name = " ".join(path)
    what = f"'{name}' has no command '{words[0]}'" if subcommands else f"'{name}' takes no '{' '.join(words)}'"
    choices = f" Commands: {', '.join(subcommands)}." if subcommands else ""
    return SettingsError(f"{what}.{choices} To draw these words: clipgen generate {shlex.join([*path, *words])}")
