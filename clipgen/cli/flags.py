"""The flags of generate, batch and again: one for every Settings field, and the ones that only a run has."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import typer

from clipgen.cli import complete
from clipgen.cli.numbers import percentage, whole
from clipgen.cli.terminal_image import MODES
from clipgen.errors import SettingsError
from clipgen.settings.checks import DECODERS
from clipgen.settings.settings import FIELDS, LIST_FIELDS, Settings, coerce

PICTURE, LOOK, FILES, SCREEN, MACHINE = "Picture", "Look", "Files", "Terminal", "Machine"
STEERING, FINE = "Steering by CLIP", "Fine tuning"
WHICH = "Which picture"
PANELS = (None, WHICH, PICTURE, LOOK, STEERING, FILES, SCREEN, MACHINE, FINE)
FORMATS = ("png", "jpeg", "webp")

# Settings field -> other spellings, what follows it in help, its panel; fields not named are numbers to fine-tune with
SPELLINGS: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "prompt": (("-p",), "TEXT", PICTURE),
    "negative_prompt": (("--no",), "TEXT", PICTURE),
    "seed": (("-s",), "N", PICTURE),
    "images": (("-n",), "N", PICTURE),
    "width": (("-W",), "N", PICTURE),
    "height": (("-H",), "N", PICTURE),
    "model": (("-m",), "NAME", LOOK),
    "preset": ((), "NAME", LOOK),
    "steps": ((), "N", LOOK),
    "guidance_scale": (("-g", "--cfg"), "X", LOOK),
    "scheduler": (("--sampler",), "NAME", LOOK),
    "guidance": ((), "NAME", STEERING),
    "budget": ((), "X", STEERING),
    "clip_guidance_scale": (("-c", "--clip-scale"), "X", STEERING),
    "guide": ((), "TEXT:W", STEERING),
    "like": ((), "IMAGE:W", STEERING),
    "clip_models": (("--clip-model",), "NAME", STEERING),
    "vary": ((), "IMAGE:W", LOOK),
    "guide_decoder": ((), "NAME", FINE),
    "guard": ((), "NAME", FINE),
    "prompt_syntax": ((), "WORD", FINE),
    "long_prompt": ((), "WORD", FINE),
    "prompt_template": ((), "TEXT", FINE),
}
ORDER = tuple(SPELLINGS) + tuple(name for name in FIELDS if name not in SPELLINGS)
TERMINAL_HELP = {
    "prompt": "What to draw; repeat it for several pictures.",
    "seed": "7, random, or 1,2,5-8: one run each.",
}
CHOICES_HELP = {
    "guide_decoder": f"What shows CLIP the latents: {', '.join(DECODERS)}.",
    "guide": "Also pulls towards a text, away if W is negative; repeatable.",
    "like": "Also pulls towards what a picture shows; repeatable.",
    "vary": "A picture to draw variations of; W 0.5 is half of it, half prompt.",
    "clip_models": "A CLIP or SigLIP that guides, not the model's own; repeatable.",
}


def _flag(*names: str, metavar: str = "", panel: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, metavar=metavar, rich_help_panel=panel, help=help, **more)


@dataclass(frozen=True)
class Options:
    """What a run needs to know beside Settings; None = not said, so that config.toml may say it."""

    size: Annotated[str | None, _flag("--size", metavar="WxH", panel=PICTURE, help="Width and height, 512x768.")] = None
    keep: Annotated[
        int | None,
        _flag("--keep", metavar="K", panel=PICTURE, help="Write only the K that match best.", parser=whole("keep", 1)),
    ] = None
    min_score: Annotated[
        float | None,
        _flag(
            "--min-score",
            metavar="P",
            panel=PICTURE,
            help="Exit 6 if a picture scores under P %.",
            parser=percentage("min_score"),
        ),
    ] = None
    require: Annotated[
        list[str] | None,
        _flag("--require", metavar="TEXT", panel=PICTURE, help="Exit 6 if CLIP misses it; all = the prompt's parts."),
    ] = None
    compare: Annotated[bool, _flag("--compare", panel=STEERING, help="Write the unguided twin too.")] = False
    output: Annotated[
        str | None,
        _flag("--output", "-o", metavar="PATH", panel=FILES, help="File, folder, $template, or - for bytes."),
    ] = None
    format: Annotated[
        str | None,
        _flag("--format", metavar="NAME", panel=FILES, help="png, jpeg or webp.", autocompletion=lambda: FORMATS),
    ] = None
    quality: Annotated[
        int | None,
        _flag(
            "--quality",
            metavar="N",
            panel=FILES,
            help="Of jpeg and webp, 1 to 100; 92.",
            parser=whole("quality", 1, 100),
        ),
    ] = None
    no_metadata: Annotated[bool, _flag("--no-metadata", panel=FILES, help="Keep the settings out of the file.")] = False
    no_history: Annotated[bool, _flag("--no-history", panel=FILES, help="Keep the picture out of the history.")] = False
    json: Annotated[bool, _flag("--json", panel=SCREEN, help="Events on stdout, one JSON object a line.")] = False
    quiet: Annotated[bool, _flag("--quiet", "-q", panel=SCREEN, help="Only paths and errors.")] = False
    verbose: Annotated[bool, _flag("--verbose", "-v", panel=SCREEN, help="All numbers; tracebacks of errors.")] = False
    show: Annotated[
        str | None,
        _flag(
            "--show",
            metavar="MODE",
            panel=SCREEN,
            help="auto, kitty, iterm2, sixel, blocks, off.",
            autocompletion=lambda: MODES,
        ),
    ] = None
    no_show: Annotated[bool, _flag("--no-show", panel=SCREEN, help="No picture in the terminal.")] = False
    preview: Annotated[
        str | None, _flag("--preview", metavar="PATH", panel=SCREEN, help="Keep the newest unfinished picture here.")
    ] = None
    dry_run: Annotated[bool, _flag("--dry-run", panel=SCREEN, help="Print every value and where it comes from.")] = (
        False
    )
    device: Annotated[str, _flag("--device", metavar="NAME", panel=MACHINE, help="auto, cpu, cuda, cuda:1, mps.")] = (
        "auto"
    )
    dtype: Annotated[str, _flag("--dtype", metavar="NAME", panel=MACHINE, help="auto, float32, float16, bfloat16.")] = (
        "auto"
    )
    offline: Annotated[bool, _flag("--offline", panel=MACHINE, help="Make no network attempt.")] = False
    exact: Annotated[bool, _flag("--exact", panel=MACHINE, help="One picture at a time, for identical bytes.")] = False

    def __post_init__(self) -> None:
        if self.json and self.quiet:
            raise SettingsError("--json and --quiet exclude each other", field="quiet")
        if self.show is not None and self.no_show:
            raise SettingsError("--show and --no-show exclude each other", field="show")
        if self.compare and self.keep is not None:
            raise SettingsError("--compare and --keep exclude each other", field="compare")
        _known("format", self.format, FORMATS)
        _known("show", self.show, MODES)


def _known(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise SettingsError(f"{name} must be {', '.join(allowed)}, got '{value}'", field=name, allowed=allowed)


@dataclass(frozen=True)
class Flags:
    """What was typed: the text of each Settings flag that was given, the prompts of `-p`, and the run's options."""

    fields: Mapping[str, str]
    prompts: tuple[str, ...]
    options: Options

    def values(self) -> dict[str, Any]:
        """Returns the checked values of the Settings flags, all but the prompt and the seed; raises SettingsError."""
        return {name: coerce(name, text) for name, text in self.fields.items() if name != "seed"}


def takes_flags(*, without: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command a flag for every Settings field and Options field, handed to it as `flags: Flags`.

    `without` names fields of either that make no sense for it.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(command).parameters.items()
            if name != "flags"
        ]
        helps = CHOICES_HELP | ({} if "prompt" in without else TERMINAL_HELP)
        settings = [_settings_parameter(name, helps.get(name)) for name in ORDER if name not in without]
        options = [option for option in _options_parameters() if option.name not in without]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            texts = {p.name: given.pop(p.name) for p in settings}
            run_options = Options(**{p.name: given.pop(p.name) for p in options})
            prompts = tuple(texts.pop("prompt", None) or ())
            typed = {name: _as_text(value) for name, value in texts.items() if value not in (None, [])}
            command(**given, flags=Flags(typed, prompts, run_options))

        run.__annotations__ = {}
        vars(run)["__signature__"] = inspect.Signature(_by_panel([*own, *settings, *options]))
        return run

    return decorate


def _as_text(value: str | bool | list[str]) -> str:
    """Returns the text form of a flag's value, as `coerce` reads it: a list has an item a line."""
    if isinstance(value, list):
        return "\n".join(value)
    return str(value).lower() if isinstance(value, bool) else value


def _settings_parameter(name: str, words: str | None) -> inspect.Parameter:
    """Returns the flag of one Settings field; all are text, which `coerce` reads as it does the environment."""
    aliases, metavar, panel = SPELLINGS.get(name, ((), "X", FINE))
    field = next(field for field in dataclasses.fields(Settings) if field.name == name)
    spelled = f"--{name.replace('_', '-')}"
    is_switch = isinstance(field.default, bool)
    option = _flag(
        f"{spelled}/--no-{spelled[2:]}" if is_switch else spelled,
        *aliases,
        metavar="" if is_switch else metavar,
        panel=panel,
        help=words or field.metadata["help"],
        autocompletion=complete.VALUES.get(name),
    )
    value = list[str] if name in ("prompt", *LIST_FIELDS) else bool if is_switch else str
    kind: Any = Annotated[value | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _options_parameters() -> list[inspect.Parameter]:
    hints = get_type_hints(Options, include_extras=True)
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in dataclasses.fields(Options)
    ]


def _by_panel(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Returns parameters panel by panel, in the order given; those without a panel, such as the context, first."""
    return sorted(parameters, key=lambda parameter: PANELS.index(_panel(parameter)))


def _panel(parameter: inspect.Parameter) -> str | None:
    metadata = getattr(parameter.annotation, "__metadata__", None)
    return metadata[0].rich_help_panel if metadata else None
