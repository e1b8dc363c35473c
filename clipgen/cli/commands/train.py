"""`clipgen train`: runs the training recipe of storybook, all stages or one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipgen.cli.group import Command, Group
from clipgen.cli.output import Report
from clipgen.errors import Cancelled, SettingsError

if TYPE_CHECKING:
    from clipgen.train.finetune import FineTuning
    from clipgen.train.recipe import Recipe

app = typer.Typer(cls=Group)
Minutes = Annotated[
    float, typer.Option("--minutes", metavar="N", help="The training time, including that of a resumed run.")
]
Tier = Annotated[str, typer.Option("--tier", metavar="NAME", help="cpu, or gpu for a larger model.")]
Out = Annotated[str, typer.Option("--out", metavar="DIR", help="The folder for checkpoints and curves.")]
Warm = Annotated[bool, typer.Option("--warm-start", metavar="", help="Start from the bundled weights.")]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="PATH", help="Your captioned pictures: a folder of images with .txt files, or a CSV."
    ),
]
OUT = "runs/storybook"
OWN = "runs/own"
HEADS = {"clipcap": "captioner", "coca": "coca"}  # a kind of captioner -> the stage that trains it
MLP = "mlp"
MAPPERS = (MLP, "transformer")


@app.callback()
def train() -> None:
    """Train storybook; can be resumed.

    clipgen train storybook --minutes 300               all stages share the time
    clipgen train unet --minutes 120                    one stage
    clipgen train clip --data my-photos/ --minutes 30   the bundled CLIP on your own pictures
    accelerate launch -m clipgen train ...              on every GPU at once
    """


@app.command("storybook", cls=Command)
def storybook(
    minutes: Minutes, tier: Tier = "cpu", out: Out = OUT, warm_start: Warm = False, json: Json = False
) -> None:
    """Train all stages and assemble the model folder."""
    with _resumable(json) as report:
        _print_result(report, _recipe(report, out, tier, minutes, warm_start).run(minutes))


def _stage(
    name: str,
    minutes: float,
    tier: str,
    out: str,
    warm_start: bool,
    json: bool,
    data: str | None = None,
) -> None:
    with _resumable(json) as report:
        _train(report, name, minutes, tier, out, warm_start, data, MLP)


def _train(
    report: Report, name: str, minutes: float, tier: str, out: str, warm_start: bool, data: str | None, mapper: str
) -> None:
    if data is None:
        _recipe(report, out, tier, minutes, warm_start, mapper).stage(name, minutes)
        _print_result(report, Path(out) / name / "model")
    else:
        own = _own(report, Path(data), OWN if out == OUT else out, tier, minutes, mapper)
        _print_result(report, own.stage(name, minutes))


@app.command("clip", cls=Command)
def clip(
    minutes: Minutes,
    data: Data = None,
    tier: Tier = "cpu",
    out: Out = OUT,
    warm_start: Warm = False,
    json: Json = False,
) -> None:
    """Train CLIP on pictures and their captions."""
    _stage("clip", minutes, tier, out, warm_start, json, data)


@app.command("judge", cls=Command)
def judge(minutes: Minutes, tier: Tier = "cpu", out: Out = OUT, warm_start: Warm = False, json: Json = False) -> None:
    """Train the second CLIP, which judges and does not guide."""
    _stage("judge", minutes, tier, out, warm_start, json)


@app.command("vae", cls=Command)
def vae(
    minutes: Minutes,
    data: Data = None,
    tier: Tier = "cpu",
    out: Out = OUT,
    warm_start: Warm = False,
    json: Json = False,
) -> None:
    """Train the VAE."""
    _stage("vae", minutes, tier, out, warm_start, json, data)


@app.command("latent-head", cls=Command)
def latent_head(
    minutes: Minutes, tier: Tier = "cpu", out: Out = OUT, warm_start: Warm = False, json: Json = False
) -> None:
    """Train the head that predicts CLIP features from latents; needs a trained clip and vae."""
    _stage("latent_head", minutes, tier, out, warm_start, json)


@app.command("unet", cls=Command)
def unet(
    minutes: Minutes,
    data: Data = None,
    tier: Tier = "cpu",
    out: Out = OUT,
    warm_start: Warm = False,
    json: Json = False,
) -> None:
    """Train the denoiser; needs a trained clip and vae."""
    _stage("unet", minutes, tier, out, warm_start, json, data)


@app.command("captioner", cls=Command)
def captioner(
    minutes: Minutes,
    data: Data = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="NAME",
            help="clipcap (from image features) or coca (from patches, the default with --data).",
        ),
    ] = None,
    mapper: Annotated[
        str | None,
        typer.Option("--mapper", metavar="NAME", help="The mapper of clipcap: mlp or transformer.", show_default="mlp"),
    ] = None,
    tier: Tier = "cpu",
    out: Out = OUT,
    warm_start: Warm = False,
    json: Json = False,
) -> None:
    """Train the captioner; needs a trained clip."""
    with _resumable(json) as report:
        _train(report, _head(kind, mapper, data), minutes, tier, out, warm_start, data, mapper or MLP)


@app.command("assemble", cls=Command)
def assemble(tier: Tier = "cpu", out: Out = OUT, json: Json = False) -> None:
    """Assemble the trained stages to a model folder."""
    with Report(json=json) as report:
        _print_result(report, _recipe(report, out, tier, 1, warm_start=False).assemble())


@contextmanager
def _resumable(json: bool) -> Iterator[Report]:
    """Yields the command's report; Ctrl-C says how to resume."""
    with Report(json=json) as report:
        try:
            yield report
        except KeyboardInterrupt:
            raise Cancelled("Stopped. The same command resumes from the last checkpoint.") from None


def _head(kind: str | None, mapper: str | None, data: str | None) -> str:
    """Returns the stage that trains a kind of captioner; with --data the bundled coca is trained further.

    Raises SettingsError for an unknown kind or mapper.
    """
    kind = kind or ("coca" if data and not mapper else "clipcap")
    if kind not in HEADS:
        raise SettingsError(f"Unknown kind '{kind[:60]}'. Kinds: {', '.join(HEADS)}.", field="kind")
    if mapper not in (None, *MAPPERS):
        raise SettingsError(f"Unknown mapper '{mapper[:60]}'. Mappers: {', '.join(MAPPERS)}.", field="mapper")
    if mapper and kind != "clipcap":
        raise SettingsError(f"'{kind}' has no mapper.", field="mapper")
    if kind == "coca" and data is None:
        raise SettingsError("storybook's coca is trained together with its CLIP: clipgen train clip", field="kind")
    return HEADS[kind]


def _own(report: Report, data: Path, out: str, tier: str, minutes: float, mapper: str) -> FineTuning:
    _check_minutes(minutes)
    from clipgen.train.finetune import FineTuning

    return FineTuning(data, Path(out), tier, mapper=mapper, say=report.say)


def _check_minutes(minutes: float) -> None:
    if not 0 < minutes < float("inf"):
        raise SettingsError(f"minutes must be above 0, got '{minutes:g}'", field="minutes")


def _recipe(report: Report, out: str, tier: str, minutes: float, warm_start: bool, mapper: str = MLP) -> Recipe:
    _check_minutes(minutes)
    from clipgen.train.recipe import Recipe, shipped

    return Recipe(Path(out), tier, warm_start=shipped() if warm_start else None, mapper=mapper, say=report.say)


def _print_result(report: Report, folder: Path) -> None:
    report.data = {"path": str(folder)}
    report.result(folder)
