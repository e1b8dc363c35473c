"""Refuses prompts that look like a mistyped command, another program's command, or a file name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from clipgen.errors import SettingsError

# Commands that other image generators and package tools have -> the command of clipgen that does the same, "" if none
OTHER_COMMANDS = {
    **dict.fromkeys(("list", "ls", "gallery"), "clipgen history"),
    **dict.fromkeys(("serve", "server", "web", "webui", "gui", "app", "start", "launch", "open", "api"), "clipgen ui"),
    **dict.fromkeys(("txt2img", "text2img", "draw", "create", "make", "imagine", "run"), 'clipgen "a fox in snow"'),
    **dict.fromkeys(("img2img", "image2image", "variations", "remix"), "clipgen vary IMAGE"),
    **dict.fromkeys(("install", "download", "pull", "fetch", "add"), "clipgen models pull NAME"),
    **dict.fromkeys(("show", "metadata", "inspect", "exif"), "clipgen info FILE"),
    **dict.fromkeys(("update", "upgrade", "status", "check", "setup", "init"), "clipgen doctor"),
    **dict.fromkeys(("remove", "delete", "rm", "clean"), "clipgen history forget ID"),
    **dict.fromkeys(("describe", "interrogate"), "clipgen caption IMAGE"),
    **dict.fromkeys(("usage", "commands", "options"), "clipgen help"),
    **dict.fromkeys(("settings", "set", "get"), "clipgen config"),
    **dict.fromkeys(("finetune", "fit"), "clipgen train"),
    **dict.fromkeys(("benchmark",), "clipgen bench"),
    **dict.fromkeys(("model",), "clipgen models"),
    **dict.fromkeys(("redo", "repeat", "replay"), "clipgen again"),
    **dict.fromkeys(("upscale", "inpaint", "outpaint", "animate", "video", "uninstall", "login", "repl", "stop"), ""),
}


IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff"})


def refuse_mistaken_words(words: Sequence[str], commands: Collection[str]) -> None:
    """Raises SettingsError for words that are hardly a prompt; to be called if the user named no command.

    Refused are a lone word that is (nearly) a command, such a word in front of a file or of a quoted prompt, a lone
    word that is a file or the name of an image file, and an existing file with a suffix among several words.
    """
    if not words:
        return
    files = [word for word in words if _is_file(word, lone=len(words) == 1)]
    quoted = any(re.search(r"\s", word) for word in words[1:])
    image_names = [word for word in words if Path(word).suffix.lower() in IMAGE_SUFFIXES]
    is_command_line = len(words) == 1 or files or image_names or quoted
    if is_command_line and (meant := _command_meant(words[0].lower(), commands)) is not None:
        hint = f" Did you mean: {meant}?" if meant else ""
        raise _refusal(f"'{words[0]}' is not a command of clipgen.{hint}", words)
    if files:
        name = shlex.quote(files[0])
        raise _refusal(f"'{files[0]}' is a file. To draw variations of it: clipgen vary {name}.", words)
    if image_names and len(words) == 1:
        raise _refusal(f"There is no file '{words[0]}'.", words)


def _refusal(what: str, words: Sequence[str]) -> SettingsError:
    these = "this word" if len(words) == 1 else "these words"
    return SettingsError(f"{what} To draw {these}: clipgen generate {shlex.join(words)}", field="prompt")


def _is_file(word: str, *, lone: bool) -> bool:
    """Tells whether a word is an existing file; among several words only if it has a suffix such as `.png`."""
    try:
        return (lone or bool(Path(word).suffix)) and Path(word).is_file()
    except (OSError, ValueError):  # too long or not a valid name
        return False


def _command_meant(word: str, commands: Collection[str]) -> str | None:
    """Returns the command line that a word probably stands for, "" if clipgen has no such command, None if none."""
    if word in commands:
        return f"clipgen {word}"
    if word in OTHER_COMMANDS:
        return OTHER_COMMANDS[word]
    from clipgen.world.concepts import PLACES, concepts

    if word in concepts() or word in PLACES:
        return None
    near = [name for name in commands if _one_edit_apart(word, name)]
    return f"clipgen {near[0]}" if near else None


def _one_edit_apart(a: str, b: str) -> bool:
    """Tells whether one insertion, deletion or substitution turns `a` into `b` (Levenshtein distance 1)."""
    short, long = sorted((a, b), key=len)
    same = next((i for i, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), len(short))
    if len(short) == len(long):
        return a != b and short[same + 1 :] == long[same + 1 :]
    return len(long) - len(short) == 1 and short[same:] == long[same + 1 :]
