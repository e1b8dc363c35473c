"""Draws runs and tells about it: what generate, again and batch have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipgen.cli import files
from clipgen.cli.flags import Options
from clipgen.cli.interrupt import Interrupt
from clipgen.cli.layers import Resolved
from clipgen.cli.outcome import check_required, check_scores, summary
from clipgen.cli.output import Report
from clipgen.cli.progress import Bar
from clipgen.cli.resolve import print_plan
from clipgen.cli.runner import Runner, Saved
from clipgen.cli.runs import Run, single, with_twins
from clipgen.errors import ModelNotFound, SettingsError
from clipgen.pipeline import inputs

if TYPE_CHECKING:
    from clipgen.models import ModelFolder

EVENTS = "clipgen-events/1"


def execute_plan(plan: Sequence[Resolved], options: Options, report: Report, *, parent: int | None = None) -> None:
    """Draws what the layers resolved to, or with --dry-run only says what that is."""
    if options.dry_run:
        print_plan(plan, report)
        return
    runs = []
    for resolved in plan:
        settings = resolved.settings()
        model, clips = (name in resolved.replayed for name in ("model", "clip_models"))
        runs.append(Run(settings, settings.title, replayed=model, replayed_clips=clips))
    execute_runs(runs, options, report, parent=parent)


def execute_runs(
    runs: Sequence[Run],
    options: Options,
    report: Report,
    *,
    parent: int | None = None,
    on_saved: Saved | None = None,
) -> None:
    """Checks the output, then loads each model and draws its runs, saving and telling as pictures get finished.

    `parent` is the history id they were made from; `on_saved` hears of each file. Raises ClipgenError; what is finished
    by then is saved.
    """
    place = files.target(options)
    inputs.check_images(run.settings for run in runs)
    runs = list(single(runs)) if options.exact else runs
    runs = with_twins(runs) if options.compare else runs
    files.check(place, [run.settings for run in runs], options)
    total = sum(run.settings.images for run in runs)
    if options.keep and options.keep > total:
        raise SettingsError(f"keep must be at most the {total} pictures asked for, got '{options.keep}'", field="keep")
    configure_hub_progress(report)
    for model, replayed in dict.fromkeys((run.settings.model, run.replayed) for run in runs):
        require_model(model, offline=options.offline, replayed=replayed)
    for settings, replayed in dict.fromkeys((run.settings, run.replayed_clips) for run in runs):
        inputs.check_clips(settings, offline=options.offline or replayed)
    report.event("start", schema=EVENTS, clipgen=_version(), settings=runs[0].settings.to_dict(), images=total)
    shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not (options.quiet or options.json)
    with Interrupt() as interrupt, Bar(total, shown=shown) as bar:
        runner = Runner(total, options, place, report, bar, parent)
        runner.on_saved = on_saved
        try:
            runner.draw(runs, interrupt)
        finally:
            runner.flush()
            report.data = summary(runner.written)
        if interrupt.stopped:
            raise interrupt.cancelled(runner.written, f"Stopped after {len(runner.written)} of {total} pictures.")
    check_scores(runner.written, options.min_score, report)
    check_required(runner.written)


def configure_hub_progress(report: Report) -> None:
    """Keeps the hub's own download bar away from where nobody looks; it reads this when it is imported."""
    if report.json or report.quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def require_model(model: str, *, offline: bool, replayed: bool = False) -> ModelFolder:
    """Finds a model before anything heavy is imported; one that only a picture names is never fetched.

    Raises ModelNotFound, SettingsError.
    """
    from clipgen.models import find_model

    try:
        return find_model(model, offline=offline or replayed)
    except ModelNotFound as error:
        if not replayed:
            raise
        advice = f"The picture names it: fetch it with clipgen models pull {model}, or choose another with --model."
        raise ModelNotFound(f"{error} {advice}", field="model") from error


def _version() -> str:
    from importlib.metadata import version

    return version("clipgen")
