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
    from clipgen.bench.quality.generation import GenerationTest

app = typer.Typer(cls=Group)


@app.callback()
def bench() -> None:
    """Measure clipgen on this machine.

    clipgen bench speed               the time of guided and unguided pictures
    clipgen bench gain                the gain of each guidance method, by a CLIP that does not guide
    clipgen bench quality             CLIP and the captioner on scenes that were not in the training data
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


def _generation_test(model: str, count: int) -> GenerationTest:
    """Returns the test that draws and judges pictures; raises SettingsError if the model has no second CLIP."""
    from clipgen.bench.quality.generation import GenerationTest
    from clipgen.gallery import load_clip
    from clipgen.pipeline import inputs
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.settings.settings import Settings

    judge = inputs.choose_judge(Settings("a fox", model=model), None)
    if judge is None:
        raise SettingsError(f"model '{model}' has no second CLIP to judge pictures", field="pictures")
    return GenerationTest(Pipeline.from_pretrained(model), load_clip(judge), count)


@app.command("quality", cls=Command)
def quality(
    count: Annotated[
        int, typer.Option("--count", metavar="N", help="Cases per category.", parser=whole("count", 8, 5000))
    ] = 300,
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
    pictures: Annotated[
        int,
        typer.Option(
            "--pictures", metavar="N", help="Also draw N prompts of each kind, judged by the second CLIP.",
            parser=whole("pictures", 0, 1000),
        ),
    ] = 0,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Measure CLIP and the captioner on unseen scenes.

    The scenes are rendered for the test. Their combinations are not in the training data; they are always the same.
    """
    with Report(json=json, events=False) as report:
        from clipgen.world.unseen import SPLITS

        if split not in SPLITS:
            raise SettingsError(f"Unknown split '{split[:60]}'. Splits: {', '.join(SPLITS)}.", field="split")
        from clipgen.bench.quality import measure as bench
        from clipgen.bench.quality.metrics import COLUMNS, table
        from clipgen.gallery import load_clip
        from clipgen.models.load_captioner import load_captioners

        scorer = load_clip(model)
        writers = load_captioners(model, scorer.encoder)
        generation = _generation_test(model, pictures) if pictures else None
        protocol, metrics = bench.measure(scorer, writers, count, split, drawings, generation, report.say)
        report.data = bench.report(protocol, metrics)
        report.table(COLUMNS, table(metrics))
        for line in (protocol, protocol.machine, bench.NOTE):
            report.say(str(line))
