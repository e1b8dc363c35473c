"""`clipgen bench`: what clipgen measures about itself, on this machine."""

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

    clipgen bench speed               guided pictures against plain ones, and against the usual way
    clipgen bench gain                what each way of steering gains, by a CLIP that steers nothing
    clipgen bench quality             what CLIP and captioner tell of scenes that nothing trained on
    """


@app.command("speed", cls=Command)
def speed(
    rounds: Annotated[
        int,
        typer.Option("--rounds", metavar="N", help="How often each arm is timed; 5.", parser=whole("rounds", 1, 100)),
    ] = 5,
    steps: Annotated[
        int | None,
        typer.Option("--steps", metavar="N", help="Denoising steps; the model's own.", parser=whole("steps", 1, 150)),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="NAME", help="A model with a CLIP; storybook.", autocompletion=complete.models
        ),
    ] = "storybook",
    json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object.")] = False,
) -> None:
    """Time guided pictures against plain ones; exit 1 if the machine is too busy to tell."""
    from clipgen.bench.speed import COLUMNS, measure, table
    from clipgen.pipeline.pipeline import Pipeline

    with Report(json=json, events=False) as report:
        pipe = Pipeline.from_pretrained(model)
        if pipe.scorer is None:
            raise SettingsError(f"model '{model}' brings no CLIP to guide by. Works: storybook.", field="model")
        found = measure(pipe, rounds, steps)
        report.data = found.to_dict()
        report.table(COLUMNS, table(found))
        report.say(found.machine)
        found.check()
        for line in found.goals:
            report.say(line)


@app.command("gain", cls=Command)
def gain(
    prompts: Annotated[
        int,
        typer.Option(
            "--prompts", metavar="N", help="Captions to draw by each arm; 40.", parser=whole("prompts", 2, 1000)
        ),
    ] = 40,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="NAME", help="A model with a CLIP; storybook.", autocompletion=complete.models
        ),
    ] = "storybook",
    judge: Annotated[
        str | None, typer.Option("--judge", metavar="NAME", help="The CLIP that judges; the model's second one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object.")] = False,
) -> None:
    """Measure what each way of steering gains."""
    from clipgen.bench import gain as bench
    from clipgen.gallery import load_clip
    from clipgen.pipeline import inputs
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.settings.settings import Settings

    with Report(json=json, events=False) as report:
        name = inputs.choose_judge(Settings("a fox", model=model), judge)
        if name is None:
            raise SettingsError(f"model '{model}' brings no second CLIP to judge: name one with --judge", field="judge")
        pipe = Pipeline.from_pretrained(model)
        if pipe.scorer is None:
            raise SettingsError(f"model '{model}' brings no CLIP to guide by. Works: storybook.", field="model")
        rows = bench.measure(pipe, load_clip(name), bench.prompts(prompts))
        report.data = bench.report(rows, prompts)
        report.table(bench.COLUMNS, bench.table(rows))
        report.say(report.data["machine"])


def _generation_test(model: str, count: int) -> GenerationTest:
    """Returns who draws and who judges; raises SettingsError for a model without a second CLIP."""
    from clipgen.bench.quality.generation import GenerationTest
    from clipgen.gallery import load_clip
    from clipgen.pipeline import inputs
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.settings.settings import Settings

    judge = inputs.choose_judge(Settings("a fox", model=model), None)
    if judge is None:
        raise SettingsError(f"model '{model}' brings no second CLIP to judge pictures", field="pictures")
    return GenerationTest(Pipeline.from_pretrained(model), load_clip(judge), count)


@app.command("quality", cls=Command)
def quality(
    count: Annotated[
        int, typer.Option("--count", metavar="N", help="Cases a part; 300.", parser=whole("count", 8, 5000))
    ] = 300,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="NAME", help="A CLIP or a model with one; storybook.",
            autocompletion=complete.models,
        ),
    ] = "storybook",
    split: Annotated[
        str, typer.Option("--split", metavar="NAME", help="dev, or test: once a release, to choose nothing by.")
    ] = "dev",
    drawings: Annotated[
        Path | None,
        typer.Option("--drawings", metavar="DIR", help="Emoji of another vendor, 1f98a.png and so on, to name too."),
    ] = None,
    pictures: Annotated[
        int,
        typer.Option(
            "--pictures", metavar="N", help="Prompts of each kind to draw too, for the model's second CLIP; 0.",
            parser=whole("pictures", 0, 1000),
        ),
    ] = 0,
    json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object.")] = False,
) -> None:  # fmt: skip
    """Measure what CLIP and captioner tell of unseen scenes.

    The scenes are made on the fly, each of a combination that nothing trained on; the same ones every time.
    """
    with Report(json=json, events=False) as report:
        from clipgen.world.unseen import SPLITS

        if split not in SPLITS:
            raise SettingsError(f"Unknown split '{split[:60]}'. Works: {', '.join(SPLITS)}.", field="split")
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
