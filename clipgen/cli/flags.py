"""The options of generate, again, vary, batch and compare: one per Settings field, and those of the command itself."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import typer

from clipgen.cli import complete
from clipgen.cli.help import FINE_TUNING, print_help
from clipgen.cli.numbers import percentage, whole
from clipgen.cli.terminal_image import MODES
from clipgen.errors import SettingsError
from clipgen.settings.settings import DEFAULTS, FIELDS, LIST_FIELDS, MODEL_FIELDS, Settings, coerce

PICTURE, LOOK, GUIDANCE, FILES, TERMINAL, MACHINE = "Picture", "Look", "CLIP guidance", "Files", "Terminal", "Machine"
WHICH = "Which picture"
PANELS = (None, WHICH, PICTURE, LOOK, GUIDANCE, FILES, TERMINAL, MACHINE, FINE_TUNING)
FORMATS = ("png", "jpeg", "webp")

# Settings field -> other spellings, metavar, panel; fields that are not listed are numbers of the panel FINE_TUNING
SPELLINGS: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "prompt": (("-p",), "TEXT", PICTURE),
    "negative_prompt": (("--no",), "TEXT", PICTURE),
    "seed": (("-s",), "N", PICTURE),
    "images": (("-n",), "N", PICTURE),
    "width": (("-W",), "N", PICTURE),
    "height": (("-H",), "N", PICTURE),
    "model": (("-m",), "NAME", LOOK),
    "preset": ((), "NAME", LOOK),
    "lora": ((), "FILE:W", LOOK),
    "embedding": ((), "FILE", LOOK),
    "steps": ((), "N", LOOK),
    "guidance_scale": (("-g", "--cfg"), "X", LOOK),
    "scheduler": (("--sampler",), "NAME", LOOK),
    "guidance": ((), "NAME", GUIDANCE),
    "budget": ((), "X", GUIDANCE),
    "clip_guidance_scale": (("-c", "--clip-scale"), "X", GUIDANCE),
    "guide": ((), "TEXT:W", FINE_TUNING),
    "like": ((), "IMAGE:W", FINE_TUNING),
    "clip_models": (("--clip-model",), "NAME", FINE_TUNING),
    "vary": ((), "IMAGE:W", LOOK),
    "vae": ((), "NAME", FINE_TUNING),
    "guide_decoder": ((), "NAME", FINE_TUNING),
    "guard": ((), "NAME", FINE_TUNING),
    "prompt_syntax": ((), "WORD", FINE_TUNING),
    "long_prompt": ((), "WORD", FINE_TUNING),
    "prompt_template": ((), "TEXT", FINE_TUNING),
}
ORDER = tuple(SPELLINGS) + tuple(name for name in FIELDS if name not in SPELLINGS)
PROMPT_HELP = {
    "prompt": "Text that describes the picture; repeat the option for several pictures.",
    "seed": "Seed of the random noise: 7, random, or 1,2,5-8 for one run per seed.",
}
FIELD_HELP = {
    "guide": "Target text for CLIP guidance; W is -2 to 2, a negative W repels; repeatable.",
    "like": "Target picture for CLIP guidance; W is -2 to 2, a negative W repels; repeatable.",
    "vary": "Picture to generate variations of; W is 0 (prompt only) to 1 (picture only).",
    "embedding": "Textual inversion file, used by its name in the prompt; repeatable.",
    "lora": "LoRA file, or its name in a folder loras; W is -4 to 4; repeatable.",
    "clip_models": "CLIP or SigLIP model that guides, and scores if the model has no CLIP; repeatable.",
}
FIELD_DEFAULTS = {"seed": "random", "clip_models": "from the model"}


def _option(*names: str, metavar: str = "", panel: str, help: str, default: Any = "", **more: Any) -> Any:
    """Returns a typer option; `default` is the text that help shows, since the value itself may come from a file."""
    shown = str(default) if default != "" else False
    return typer.Option(*names, metavar=metavar, rich_help_panel=panel, help=help, show_default=shown, **more)


@dataclass(frozen=True)
class Options:
    """The options of a command that are no Settings fields; None leaves the choice to config.toml."""

    size: Annotated[
        str | None, _option("--size", metavar="WxH", panel=PICTURE, help="Width and height, for example 512x768.")
    ] = None
    keep: Annotated[
        int | None,
        _option(
            "--keep",
            metavar="K",
            panel=PICTURE,
            help="Save only the K pictures that match best.",
            default="all",
            parser=whole("keep", 1),
        ),
    ] = None
    min_score: Annotated[
        float | None,
        _option(
            "--min-score",
            metavar="P",
            panel=FINE_TUNING,
            help="Exit with code 6 if a picture scores below P %.",
            parser=percentage("min_score"),
        ),
    ] = None
    require: Annotated[
        list[str] | None,
        _option(
            "--require",
            metavar="TEXT",
            panel=FINE_TUNING,
            help="Exit with code 6 if CLIP does not see TEXT; all checks every part of the prompt. Repeatable.",
        ),
    ] = None
    compare: Annotated[
        bool, _option("--compare", panel=GUIDANCE, help="Also draw each picture without CLIP guidance.")
    ] = False
    output: Annotated[
        str | None,
        _option(
            "--output",
            "-o",
            metavar="PATH",
            panel=FILES,
            help="A file, a folder, a template such as $seed, or - for stdout.",
            default="outputs/",
        ),
    ] = None
    format: Annotated[
        str | None,
        _option(
            "--format",
            metavar="NAME",
            panel=FILES,
            help="png, jpeg or webp.",
            default="png",
            autocompletion=lambda: FORMATS,
        ),
    ] = None
    quality: Annotated[
        int | None,
        _option(
            "--quality",
            metavar="N",
            panel=FILES,
            help="Quality of jpeg and webp, 1 to 100.",
            default=92,
            parser=whole("quality", 1, 100),
        ),
    ] = None
    no_metadata: Annotated[
        bool, _option("--no-metadata", panel=FILES, help="Do not store the settings in the file.")
    ] = False
    no_history: Annotated[bool, _option("--no-history", panel=FILES, help="Do not add the picture to the history.")] = (
        False
    )
    json: Annotated[
        bool, _option("--json", panel=TERMINAL, help="Print events on stdout, one JSON object per line.")
    ] = False
    quiet: Annotated[bool, _option("--quiet", "-q", panel=TERMINAL, help="Print only paths and errors.")] = False
    verbose: Annotated[bool, _option("--verbose", "-v", panel=TERMINAL, help="Print all scores, and tracebacks.")] = (
        False
    )
    show: Annotated[
        str | None,
        _option(
            "--show",
            metavar="MODE",
            panel=TERMINAL,
            help="Pictures in the terminal: auto, kitty, iterm2, sixel, blocks, off.",
            default="auto",
            autocompletion=lambda: MODES,
        ),
    ] = None
    no_show: Annotated[bool, _option("--no-show", panel=TERMINAL, help="The same as --show off.")] = False
    preview: Annotated[
        str | None,
        _option("--preview", metavar="PATH", panel=FINE_TUNING, help="Write the unfinished picture to this file."),
    ] = None
    dry_run: Annotated[
        bool, _option("--dry-run", panel=TERMINAL, help="Print each setting and where it comes from; draw nothing.")
    ] = False
    device: Annotated[
        str,
        _option("--device", metavar="NAME", panel=MACHINE, help="auto, cpu, cuda, cuda:1 or mps.", default="auto"),
    ] = "auto"
    dtype: Annotated[
        str,
        _option(
            "--dtype",
            metavar="NAME",
            panel=FINE_TUNING,
            help="auto, auto-fast, float32, float16 or bfloat16.",
            default="auto",
        ),
    ] = "auto"
    compile: Annotated[
        bool,
        _option("--compile", panel=FINE_TUNING, help="Compile the denoiser on a CUDA card: slow start, faster steps."),
    ] = False
    offline: Annotated[bool, _option("--offline", panel=MACHINE, help="Never use the network.")] = False
    exact: Annotated[
        bool, _option("--exact", panel=FINE_TUNING, help="Draw one picture at a time, for byte-identical files.")
    ] = False

    def __post_init__(self) -> None:
        if self.json and self.quiet:
            raise SettingsError("--json and --quiet exclude each other", field="quiet")
        if self.show is not None and self.no_show:
            raise SettingsError("--show and --no-show exclude each other", field="show")
        if self.compare and self.keep is not None:
            raise SettingsError("--compare and --keep exclude each other", field="compare")
        _check_choice("format", self.format, FORMATS)
        _check_choice("show", self.show, MODES)


def _check_choice(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise SettingsError(f"{name} must be {', '.join(allowed)}, got '{value}'", field=name, allowed=allowed)


@dataclass(frozen=True)
class Flags:
    """What the user typed: the text of each given Settings option, the prompts of `-p`, and the command's options."""

    fields: Mapping[str, str]
    prompts: tuple[str, ...]
    options: Options

    def values(self) -> dict[str, Any]:
        """Returns the checked values of the Settings options except prompt and seed; raises SettingsError."""
        return {name: coerce(name, text) for name, text in self.fields.items() if name != "seed"}


def takes_flags(*, without: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Returns a decorator that gives a command an option per Settings and Options field, passed as `flags: Flags`.

    Args:
        without: Fields of Settings or Options that the command does not have.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(command).parameters.items()
            if name != "flags"
        ]
        helps = FIELD_HELP | ({} if "prompt" in without else PROMPT_HELP)
        settings = [_settings_parameter(name, helps.get(name)) for name in ORDER if name not in without]
        options = [option for option in _options_parameters() if option.name not in without]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            del values["help_all"]
            texts = {p.name: values.pop(p.name) for p in settings}
            command_options = Options(**{p.name: values.pop(p.name) for p in options})
            prompts = tuple(texts.pop("prompt", None) or ())
            fields = {name: _to_text(value) for name, value in texts.items() if value not in (None, [])}
            command(**values, flags=Flags(fields, prompts, command_options))

        run.__annotations__ = {}
        vars(run)["__signature__"] = inspect.Signature(_by_panel([*own, *settings, *options, _help_all_parameter()]))
        return run

    return decorate


def _to_text(value: str | bool | list[str]) -> str:
    """Returns an option's value in the text form that `coerce` reads; a list has one item per line."""
    if isinstance(value, list):
        return "\n".join(value)
    return str(value).lower() if isinstance(value, bool) else value


def _settings_parameter(name: str, text: str | None) -> inspect.Parameter:
    """Returns the option of one Settings field. Its value is text, read by `coerce` as the environment is."""
    aliases, metavar, panel = SPELLINGS.get(name, ((), "X", FINE_TUNING))
    field = next(field for field in dataclasses.fields(Settings) if field.name == name)
    long = f"--{name.replace('_', '-')}"
    is_switch = isinstance(field.default, bool)
    option = _option(
        f"{long}/--no-{long[2:]}" if is_switch else long,
        *aliases,
        metavar="" if is_switch else metavar,
        panel=panel,
        help=text or field.metadata["help"],
        default=_default_text(name),
        autocompletion=complete.VALUES.get(name),
    )
    value = list[str] if name in ("prompt", *LIST_FIELDS) else bool if is_switch else str
    kind: Any = Annotated[value | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _default_text(name: str) -> str:
    """Returns the default of a Settings field as help shows it."""
    if name in MODEL_FIELDS:
        return "from the model"
    value = DEFAULTS.get(name)
    if name in FIELD_DEFAULTS or value in (None, False, "", ()):
        return FIELD_DEFAULTS.get(name, "")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _options_parameters() -> list[inspect.Parameter]:
    hints = get_type_hints(Options, include_extras=True)
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in dataclasses.fields(Options)
    ]


def _help_all_parameter() -> inspect.Parameter:
    """Returns the option --help-all."""

    def callback(ctx: typer.Context, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            print_help(ctx.command, ctx, everything=True)
            print()
            raise typer.Exit

    option = typer.Option(
        "--help-all", metavar="", is_eager=True, callback=callback, help="Also show the options for fine tuning."
    )
    annotation = Annotated[bool, option]
    return inspect.Parameter("help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)


def _by_panel(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Returns parameters panel by panel, in the given order; those without a panel, such as the context, first."""
    return sorted(parameters, key=lambda parameter: PANELS.index(_panel(parameter)))


def _panel(parameter: inspect.Parameter) -> str | None:
    metadata = getattr(parameter.annotation, "__metadata__", None)
    return metadata[0].rich_help_panel if metadata else None
