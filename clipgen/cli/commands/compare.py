"""`clipgen compare`: measures gain and cost of CLIP guidance, or compares two picture files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipgen.cli import compare_files, complete, execute, files
from clipgen.cli.config_file import read_user
from clipgen.cli.flags import GUIDANCE, LOOK, PICTURE, Flags, Options, takes_flags
from clipgen.cli.interrupt import Interrupt
from clipgen.cli.layers import Resolved
from clipgen.cli.output import Report
from clipgen.cli.progress import Bar
from clipgen.cli.prompts import read_prompts
from clipgen.cli.resolve import check_flags, from_file, plan, print_plan
from clipgen.cli.runner import add_to_history, from_pretrained
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
from clipgen.report.comparison import ComparisonRow, averaged, verdicts
from clipgen.settings.settings import Settings, with_seed

if TYPE_CHECKING:
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Step

WITHOUT = ("images", "keep", "min_score", "require", "compare", "preview", "show", "no_show", "exact")
COLUMNS = ("variant", "seconds", "guide", "judge", "file")


@takes_flags(without=WITHOUT)
def compare(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT or FILE FILE",
            help="What to draw, or two picture files.",
            rich_help_panel=PICTURE,
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="NAME",
            help="A CLIP or SigLIP that judges and does not guide.",
            rich_help_panel=GUIDANCE,
            autocompletion=complete.models,
        ),
    ] = None,
    dial: Annotated[
        bool,
        typer.Option(
            "--dial", metavar="", help="Compare 0, 1/4, 1/2, 1 and 2 times the scale.", rich_help_panel=GUIDANCE
        ),
    ] = False,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="FILE", help="Use the settings of a picture or TOML file.", rich_help_panel=LOOK
        ),
    ] = None,
    *,
    flags: Flags,
) -> None:
    """Measure gain and cost of CLIP guidance.

    Draws guided and unguided from the same noise, and the best of as many pictures as fit into the extra time.

    clipgen compare "a fox in snow" --judge NAME       judged by a CLIP that does not guide
    clipgen compare "a fox in snow" -c 0.4 -s 1-8      the mean of eight seeds
    clipgen compare "a fox in snow" --dial             weaker and stronger guidance
    clipgen compare a.png b.png                        the difference of two files
    """
    options = flags.options
    with Report(json=options.json, quiet=options.quiet, verbose=options.verbose, events=False) as report:
        if pictures := compare_files.image_files(words or ()):
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
    """Returns a run with guidance `clip` if it has none; raises SettingsError for `--guidance off`."""
    if run.values.get("guidance", "off") != "off" or run.values.get("budget") is not None:
        return run
    if "guidance" in flags.fields:
        raise SettingsError("compare needs guidance, got 'off'", field="guidance")
    values, origins = {**run.values, "guidance": "clip"}, {**run.origins, "guidance": "compare"}
    return replace(run, values=values, origins=origins)


def _compare(
    runs: Sequence[Resolved], judge: str | None, comparison: Comparison, options: Options, report: Report
) -> None:
    """Checks the settings, the output and the models, then draws and prints the comparison."""
    settings_list = [with_seed(run.settings()).replace(images=1) for run in runs]
    target = files.output_target(options)
    if target.to_stdout:
        raise SettingsError("compare cannot write to stdout; name a folder with --output", field="output")
    inputs.check_images(settings_list)
    for settings in settings_list:
        comparison.check(settings)
    files.check(target, [each for settings in settings_list for each in [settings] * comparison.max_variants], options)
    for run, settings in zip(runs, settings_list, strict=True):
        execute.require_model(settings.model, report, offline=options.offline, replayed="model" in run.replayed)
        inputs.require_vae(settings.vae, offline=options.offline or "vae" in run.replayed)
        inputs.check_clips(settings, offline=options.offline or "clip_models" in run.replayed)
        if judge is not None:
            inputs.check_judge(judge, settings, offline=options.offline)
    _print_comparisons(_draw(settings_list, judge, comparison, target, options, report), report)


def _draw(
    settings_list: Sequence[Settings],
    judge: str | None,
    comparison: Comparison,
    target: files.OutputTarget,
    options: Options,
    report: Report,
) -> list[list[ComparisonRow]]:
    """Draws every comparison and saves its pictures; returns the rows of each."""
    comparisons: list[list[ComparisonRow]] = []
    with Interrupt() as interrupt, Bar(len(settings_list), report) as bar:

        def show_step(step: Step, variant: str) -> None:
            if step.index == 0:
                bar.next_picture()
            bar.step(step, len(comparisons), None, variant)
            if interrupt.stopped:
                done = f"Stopped after {len(comparisons)} of {len(settings_list)} comparisons."
                raise interrupt.cancelled(comparisons, done)

        pipe: Pipeline | None = None
        for settings in settings_list:
            with interrupt.abortable():
                if pipe is None or pipe.origin.model != settings.model:
                    bar.loading(f"Loading {settings.model}")
                    own = [each for each in settings_list if each.model == settings.model]
                    pipe = from_pretrained(settings.model, options, own)
                scorers = choose_scorers(pipe, settings, judge)
            rows: list[ComparisonRow] = []
            finished: list[tuple[Variant, Path | None]] = []
            try:
                for event in run_comparison(pipe, settings, scorers, comparison):
                    if isinstance(event, VariantStep):
                        show_step(event.step, event.variant)
                        continue
                    _write(event, target, report)
                    finished.append((event, event.result.path))
                    rows.append(comparison_row(event, scorers))
            finally:
                _add_to_history(finished, options, report)
            comparisons.append(rows)
    return comparisons


def _write(variant: Variant, target: files.OutputTarget, report: Report) -> None:
    """Saves the picture of a variant; its file name ends with the name of the variant."""
    label = "" if variant.name == GUIDED else f"-{variant.name.replace(' ', '-')}"
    files.save(variant.result, target, label=label)
    for note in variant.result.warnings:
        report.warn(note)


def _add_to_history(finished: Sequence[tuple[Variant, Path | None]], options: Options, report: Report) -> None:
    """Adds the pictures to the history, the guided one last, so that `again` repeats it."""
    if options.no_history or not read_user().tables.get("history.on", True):
        return
    for variant, path in sorted(finished, key=lambda each: each[0].name == GUIDED):
        if path:
            add_to_history(variant.result, path, report, None)


def _print_comparisons(comparisons: Sequence[Sequence[ComparisonRow]], report: Report) -> None:
    """Prints the rows of each comparison, the mean of several, and the verdicts."""
    several = len(comparisons) > 1
    rows = averaged(comparisons) if several else list(comparisons[0])
    results = verdicts(rows)
    report.data = {
        "comparisons": [[row.to_dict() for row in each] for each in comparisons],
        "mean": [row.to_dict() for row in rows],
        "verdicts": [verdict.to_dict() for verdict in results],
    }
    lines = [(row.variant, row) for each in comparisons for row in each]
    lines += [(f"mean of {len(comparisons)}: {row.variant}", row) for row in rows if several]
    report.table(COLUMNS, [(name, f"{r.seconds:.1f}", r.guide, r.judge or "none", r.path) for name, r in lines])
    for verdict in results:
        report.say(str(verdict))
    if rows[0].judge is None:
        report.say("self-graded: judged by the CLIP that guides; --judge NAME names another one", "dim")
