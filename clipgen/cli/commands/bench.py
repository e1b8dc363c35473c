"""`clipgen bench`: measures the speed and the quality of clipgen on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipgen.cli import complete
from clipgen.cli.group import Command, Group
from clipgen.cli.numbers import whole
from clipgen.cli.output import Report
from clipgen.errors import SettingsError

if TYPE_CHECKING:
    from clipgen.bench.quality.pictures import PictureOptions
    from clipgen.world.unseen import Split

app = typer.Typer(cls=Group)


@app.callback()
def bench() -> None:
    """Measure clipgen on this machine.

    clipgen bench speed               the time of guided and unguided pictures
    clipgen bench gain                the gain of each guidance method, by a CLIP that does not guide
    clipgen bench quality             CLIP and the captioner on scenes that were not in the training data
    clipgen bench quality --pictures  the pictures of a model: every concept, unseen combinations, guidance
    """


@app.command("speed", cls=Command)
def speed(
    rounds: Annotated[
        int,
        typer.Option("--rounds", metavar="N", help="How often each variant is timed.", parser=whole("rounds", 1, 100)),
    ] = 5,
    steps: Annotated[
        int | None,
        typer.Option("--steps", metavar="N", help="Denoising steps.", parser=whole("steps", 1, 150)),
    ] = None,
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="NAME", help="A model with a CLIP.", autocompletion=complete.models),
    ] = "storybook",
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")] = False,
) -> None:
    """Compare the time of guided and unguided pictures; exits with code 1 if the machine is too busy."""
    from clipgen.bench.speed import COLUMNS, measure, table
    from clipgen.pipeline.pipeline import Pipeline

    with Report(json=json, events=False) as report:
        pipe = Pipeline.from_pretrained(model)
        if pipe.scorer is None:
            raise SettingsError(f"model '{model}' has no CLIP to guide with. Example: storybook.", field="model")
        result = measure(pipe, rounds, steps)
        report.data = result.to_dict()
        report.table(COLUMNS, table(result))
        report.say(result.machine)
        result.check()
        for line in result.goals:
            report.say(line)


@app.command("gain", cls=Command)
def gain(
    prompts: Annotated[
        int,
        typer.Option("--prompts", metavar="N", help="Number of captions to draw.", parser=whole("prompts", 2, 1000)),
    ] = 40,
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="NAME", help="A model with a CLIP.", autocompletion=complete.models),
    ] = "storybook",
    judge: Annotated[
        str | None,
        typer.Option("--judge", metavar="NAME", help="The CLIP that judges.", show_default="the model's second CLIP"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")] = False,
) -> None:
    """Measure the gain of each guidance method."""
    from clipgen.bench import gain as bench
    from clipgen.gallery import load_clip
    from clipgen.pipeline import inputs
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.settings.settings import Settings

    with Report(json=json, events=False) as report:
        name = inputs.choose_judge(Settings("a fox", model=model), judge)
        if name is None:
            raise SettingsError(f"model '{model}' has no second CLIP to judge: name one with --judge", field="judge")
        pipe = Pipeline.from_pretrained(model)
        if pipe.scorer is None:
            raise SettingsError(f"model '{model}' has no CLIP to guide with. Example: storybook.", field="model")
        rows = bench.measure(pipe, load_clip(name), bench.prompts(prompts))
        report.data = bench.report(rows, prompts)
        report.table(bench.COLUMNS, bench.table(rows))
        report.say(report.data["machine"])


PICTURES = "With --pictures"  # panel of the help page


@app.command("quality", cls=Command)
def quality(
    count: Annotated[
        int | None,
        typer.Option(
            "--count", metavar="N", help="Cases, or prompts, per category.", parser=whole("count", 1, 5000),
            show_default="300, with --pictures 60",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="NAME", help="A CLIP, or a model with a CLIP.",
            autocompletion=complete.models,
        ),
    ] = "storybook",
    split: Annotated[
        str, typer.Option("--split", metavar="NAME", help="dev, or test, which is for releases only.")
    ] = "dev",
    drawings: Annotated[
        Path | None,
        typer.Option("--drawings", metavar="DIR", help="Also classify emoji of another font: files like 1f98a.png."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")] = False,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures", metavar="", help="Measure generated pictures instead.", rich_help_panel=PICTURES
        ),
    ] = False,
    parts: Annotated[
        str | None,
        typer.Option(
            "--parts", metavar="LIST", help="Some of named, scenes, guidance, grids.", show_default="all",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", metavar="N", help="Pictures per concept.", parser=whole("seeds", 1, 100),
            rich_help_panel=PICTURES,
        ),
    ] = 4,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", metavar="N", help="Denoising steps.", parser=whole("steps", 1, 150),
            show_default="the model's", rich_help_panel=PICTURES,
        ),
    ] = None,
    art: Annotated[
        str,
        typer.Option(
            "--art", metavar="NAME", help="The drawings of the ceilings: flat, 3d or noto.", rich_help_panel=PICTURES
        ),
    ] = "flat",
    quick: Annotated[
        bool,
        typer.Option("--quick", metavar="", help="A few concepts and prompts only.", rich_help_panel=PICTURES),
    ] = False,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="The folder of the report.", rich_help_panel=PICTURES),
    ] = Path("runs/quality"),
) -> None:  # fmt: skip
    """Measure CLIP and the captioner on unseen scenes, or the pictures of a model.

    The scenes are rendered for the test. Their combinations are not in the training data; they are always the same.
    With --pictures, the model draws each of its concepts and prompts of unseen combinations. A picture counts if the
    model's own CLIP and a second one, which never guides, both recognise what was asked.
    """
    with Report(json=json, events=False) as report:
        from clipgen.world.unseen import SPLITS

        if split not in SPLITS:
            raise SettingsError(f"Unknown split '{split[:60]}'. Splits: {', '.join(SPLITS)}.", field="split")
        if pictures:
            options = _picture_options(out, parts, split, seeds, count, art, quick)
            _measure_pictures(report, model, steps, options)
            return
        from clipgen.bench.quality import measure as bench
        from clipgen.bench.quality.metrics import COLUMNS, table
        from clipgen.gallery import load_clip
        from clipgen.models.load_captioner import load_captioners

        cases = 300 if count is None else whole("count", 8)(count)
        scorer = load_clip(model)
        writers = load_captioners(model, scorer.encoder)
        protocol, metrics = bench.measure(scorer, writers, cases, split, drawings, report.say)
        report.data = bench.report(protocol, metrics)
        report.table(COLUMNS, table(metrics))
        for line in (protocol, protocol.machine, bench.NOTE):
            report.say(str(line))


def _picture_options(
    out: Path, parts: str | None, split: Split, seeds: int, count: int | None, art: str, quick: bool
) -> PictureOptions:
    """Returns what the picture benchmark does; raises SettingsError for unknown names."""
    from clipgen.bench.quality.pictures import PARTS, PictureOptions
    from clipgen.world.art import PACKAGES

    names = list(PARTS) if parts is None else [name.strip() for name in parts.split(",")]
    for value, field, known in [*((name, "parts", PARTS) for name in names), (art, "art", PACKAGES)]:
        if value not in known:
            raise SettingsError(f"Unknown {field} '{value[:60]}'. Works: {', '.join(known)}.", field=field)
    if quick:
        return PictureOptions(out, names, split, concepts=6, seeds=1, count=1, grid_seeds=2, art=art)
    return PictureOptions(out, names, split, None, seeds, 60 if count is None else count, art=art)


def _measure_pictures(report: Report, model: str, steps: int | None, options: PictureOptions) -> None:
    """Runs the picture benchmark; raises SettingsError if the model lacks a vocabulary, a CLIP or a judge."""
    from clipgen.bench.quality import pictures as bench
    from clipgen.bench.quality.drawing import PictureTest, check_model
    from clipgen.bench.quality.metrics import COLUMNS, table
    from clipgen.gallery import load_clip
    from clipgen.pipeline import inputs
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.settings.settings import Settings

    judge = inputs.choose_judge(Settings("a fox", model=model), None)
    if judge is None:
        raise SettingsError(f"model '{model}' has no second CLIP to judge pictures", field="pictures")
    pipe = Pipeline.from_pretrained(model)
    check_model(pipe, model)
    if steps is not None:
        pipe.defaults["steps"] = steps
    test = PictureTest(pipe, load_clip(judge), report.say)
    results = bench.measure_pictures(test, options)
    report.data = results.to_dict()
    report.table(COLUMNS, table(results.metrics))
    for line in bench.summary(results):
        report.say(line)
    report.result(options.folder / "report.md")
