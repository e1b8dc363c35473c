"""`clipgen bench`: what clipgen measures about itself, on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from clipgen.cli import complete
from clipgen.cli.group import Command, Group
from clipgen.cli.numbers import whole
from clipgen.cli.report import Report

app = typer.Typer(cls=Group)


@app.callback()
def bench() -> None:
    """Measure clipgen on this machine.

    clipgen bench speed               guided pictures against plain ones, and against the usual way
    clipgen bench gain                what each way of steering gains, by a CLIP that steers nothing
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
    from clipgen.errors import SettingsError
    from clipgen.pipeline import Pipeline

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
    from clipgen import inputs
    from clipgen.bench import gain as bench
    from clipgen.errors import SettingsError
    from clipgen.gallery import load_clip
    from clipgen.pipeline import Pipeline
    from clipgen.settings import Settings

    with Report(json=json, events=False) as report:
        name = inputs.judge_of(Settings("a fox", model=model), judge)
        if name is None:
            raise SettingsError(f"model '{model}' brings no second CLIP to judge: name one with --judge", field="judge")
        pipe = Pipeline.from_pretrained(model)
        if pipe.scorer is None:
            raise SettingsError(f"model '{model}' brings no CLIP to guide by. Works: storybook.", field="model")
        rows = bench.measure(pipe, load_clip(name), bench.prompts(prompts))
        report.data = bench.report(rows, prompts)
        report.table(bench.COLUMNS, bench.table(rows))
        report.say(report.data["machine"])
