"""`clipgen completion SHELL`: prints the completion script of a shell."""

from __future__ import annotations

from typing import Annotated

import typer

from clipgen.errors import SettingsError

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def completion(
    shell: Annotated[
        str,
        typer.Argument(
            metavar="SHELL", help=", ".join(SHELLS), rich_help_panel="Shell", autocompletion=lambda: list(SHELLS)
        ),
    ],
) -> None:
    """Print the completion script of a shell.

    clipgen completion bash >> ~/.bashrc
    clipgen completion zsh > ~/.zfunc/_clipgen
    clipgen completion fish > ~/.config/fish/completions/clipgen.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    if shell not in SHELLS:
        raise SettingsError(f"Unknown shell '{shell}'. Shells: {', '.join(SHELLS)}.", allowed=SHELLS)
    print(get_completion_script(prog_name="clipgen", complete_var="_CLIPGEN_COMPLETE", shell=shell))
