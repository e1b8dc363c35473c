"""`clipgen compare`: what CLIP's steering gains and costs, or how two pictures differ."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipgen.cli import compare_files, complete, execute, files
from clipgen.cli.config_file import read_user
from clipgen.cli.flags import LOOK, PICTURE, STEERING, Flags, Options, takes_flags
from clipgen.cli.interrupt import Interrupt
from clipgen.cli.layers import Resolved
from clipgen.cli.output import Report
from clipgen.cli.progress import Bar
from clipgen.cli.prompts import read_prompts
from clipgen.cli.resolve import check_flags, from_file, plan, print_plan
from clipgen.cli.runner import from_pretrained, remember
from clipgen.compare import (
    BEST_OF_N,
    GUIDED,
    SCALE_SWEEP,
    Comparison,
    Variant,
    VariantStep,
    choose_scorers,
    comparison_row,
    run_comparison,
)
from clipgen.errors import SettingsError
from clipgen.pipeline import inputs
from clipgen.report.comparison import Row, averaged, verdicts
from clipgen.settings.settings import Settings, with_seed

if TYPE_CHECKING:
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Step

ONLY_DRAWING = ("images", "keep", "min_score", "require", "compare", "preview", "show", "no_show", "exact")
COLUMNS = ("arm", "seconds", "guide", "judge", "file")


@takes_flags(without=ONLY_DRAWING)
def compare(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT or FILE FILE",
            help="What to draw each comparison, or two pictures.",
            rich_help_panel=PICTURE,
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="NAME",
            help="A CLIP or SigLIP that did not guide: its word counts.",
            rich_help_panel=STEERING,
            autocompletion=complete.models,
        ),
    ] = None,
    dial: Annotated[
        bool,
        typer.Option(
            "--dial", metavar="", help="Instead: CLIP's pull at 0, 1/4, 1/2, 1 and 2.", rich_help_panel=STEERING
        ),
    ] = False,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="Settings of a picture, a record or a TOML.", rich_help_panel=LOOK),
    ] = None,
    *,
    flags: Flags,
) -> None:
    """Measure what CLIP's steering gains and costs.

    the same noise guided and unguided, and the best of as many as the extra seconds buy

    clipgen compare "a fox in snow" --judge NAME       a CLIP that did not guide judges
    clipgen compare "a fox in snow" -c 0.4 -s 1-8      the mean over eight seeds
    clipgen compare "a fox in snow" --dial             the same noise, steered more and less
    clipgen compare a.png b.png                        how two pictures differ
    """
    options = flags.options
    with Report(json=options.json, quiet=options.quiet, verbose=options.verbose, events=False) as report:
        if pictures := compare_files.pictures_among(words or ()):
            report.data = compare_files.compare(pictures, flags, judge, report)
            return
        prompts, notes = read_prompts(words or (), flags.prompts)
        for note in notes:
            report.note(note)
        check_flags(flags)
        restored, _ = from_file(Path(from_), report) if from_ else (None, None)
        runs = [_guided(run, flags) for run in plan(flags, prompts, [restored] if restored else [], report)]
        if options.dry_run:
            print_plan(runs, report)
            return
        _compare(runs, judge, SCALE_SWEEP if dial else BEST_OF_N, options, report)


def _guided(run: Resolved, flags: Flags) -> Resolved:
    """Returns a run that CLIP's gradient guides where nobody said how; raises SettingsError for `--guidance off`."""
    if run.values.get("guidance", "off") != "off" or run.values.get("budget") is not None:
        return run
    if "guidance" in flags.fields:
        raise SettingsError("compare needs guidance: name another than 'off'", field="guidance")
    values, origins = {**run.values, "guidance": "clip"}, {**run.origins, "guidance": "compare"}
    return replace(run, values=values, origins=origins)


def _compare(
    runs: Sequence[Resolved], judge: str | None, comparison: Comparison, options: Options, report: Report
) -> None:
    """Checks everything that can be known before, then draws and tells."""
    wanted = [with_seed(run.settings()).replace(images=1) for run in runs]
    place = files.target(options)
    if place.to_stdout:
        raise SettingsError("compare writes several files, not to stdout; name a folder with --output", field="output")
    inputs.check_images(wanted)
    for settings in wanted:
        comparison.check(settings)
    files.check(place, [each for settings in wanted for each in [settings] * comparison.max_variants], options)
    execute.configure_hub_progress(report)
    for run, settings in zip(runs, wanted, strict=True):
        execute.require_model(settings.model, offline=options.offline, replayed="model" in run.replayed)
        inputs.check_clips(settings, offline=options.offline or "clip_models" in run.replayed)
        if judge is not None:
            inputs.check_judge(judge, settings, offline=options.offline)
    _tell(_draw(wanted, judge, comparison, place, options, report), report)


def _draw(
    wanted: Sequence[Settings],
    judge: str | None,
    comparison: Comparison,
    place: files.OutputTarget,
    options: Options,
    report: Report,
) -> list[list[Row]]:
    """Draws every comparison and writes its pictures; returns the arms of each."""
    comparisons: list[list[Row]] = []
    shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not (options.quiet or options.json)
    with Interrupt() as interrupt, Bar(len(wanted), shown=shown) as bar:

        def hear(step: Step, variant: str) -> None:
            if step.index == 0:
                bar.pause()
            bar.step(step, len(comparisons), None, variant)
            if interrupt.stopped:
                done = f"Stopped after {len(comparisons)} of {len(wanted)} comparisons."
                raise interrupt.cancelled(comparisons, done)

        pipe: Pipeline | None = None
        for settings in wanted:
            with interrupt.waiting():
                if pipe is None or pipe.origin.model != settings.model:
                    bar.loading(f"Loading {settings.model}")
                    own = [each for each in wanted if each.model == settings.model]
                    pipe = from_pretrained(settings.model, options, own)
                scorers = choose_scorers(pipe, settings, judge)
            rows: list[Row] = []
            drawn: list[tuple[Variant, Path | None]] = []
            try:
                for event in run_comparison(pipe, settings, scorers, comparison):
                    if isinstance(event, VariantStep):
                        hear(event.step, event.variant)
                        continue
                    bar.pause()
                    _write(event, place, report)
                    drawn.append((event, event.result.path))
                    rows.append(comparison_row(event, scorers))
            finally:
                _remember(drawn, options, report)
            comparisons.append(rows)
    return comparisons


def _write(variant: Variant, place: files.OutputTarget, report: Report) -> None:
    """Saves a variant's picture under a name that says what it is."""
    label = "" if variant.name == GUIDED else f"-{variant.name.replace(' ', '-')}"
    files.save(variant.result, place, label=label)
    for note in variant.result.warnings:
        report.warn(note)


def _remember(drawn: Sequence[tuple[Variant, Path | None]], options: Options, report: Report) -> None:
    """Writes the pictures into the history, the guided one last: it is what was asked for, and `again` draws it."""
    if options.no_history or not read_user().tables.get("history.on", True):
        return
    for variant, path in sorted(drawn, key=lambda each: each[0].name == GUIDED):
        if path:
            remember(variant.result, path, report, None)


def _tell(comparisons: Sequence[Sequence[Row]], report: Report) -> None:
    """Prints each comparison, or the mean of several, and who says so."""
    several = len(comparisons) > 1
    rows = averaged(comparisons) if several else list(comparisons[0])
    found = verdicts(rows)
    report.data = {
        "comparisons": [[row.to_dict() for row in each] for each in comparisons],
        "mean": [row.to_dict() for row in rows],
        "verdicts": [verdict.to_dict() for verdict in found],
    }
    lines = [(row.arm, row) for each in comparisons for row in each]
    lines += [(f"mean of {len(comparisons)}: {row.arm}", row) for row in rows if several]
    report.table(COLUMNS, [(arm, f"{r.seconds:.1f}", r.guide, r.judge or "none", r.path) for arm, r in lines])
    for verdict in found:
        report.say(str(verdict))
    if rows[0].judge is None:
        report.say("self-graded: the CLIP that guides also counts; --judge NAME asks one that does not", "dim")
