"""Executes the runs of generate, again, vary and batch: checks them, draws the pictures and reports the result."""

from __future__ import annotations

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
from clipgen.cli.runner import OnSaved, Runner
from clipgen.cli.runs import Run, single, with_twins
from clipgen.errors import ModelNotFound, SettingsError
from clipgen.pipeline import inputs

if TYPE_CHECKING:
    from clipgen.models import ModelFolder

EVENTS = "clipgen-events/1"


def execute_plan(plan: Sequence[Resolved], options: Options, report: Report, *, parent: int | None = None) -> None:
    """Draws the resolved runs, or with --dry-run prints their settings."""
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
    on_saved: OnSaved | None = None,
) -> None:
    """Checks the output and the models, then draws all runs and saves each picture as soon as it is finished.

    Args:
        runs: What to draw, in this order.
        options: The options of the command.
        report: Its output.
        parent: The history id of the picture that the settings come from.
        on_saved: Is called with the job and the path of each picture, for the journal of a batch.

    Raises ClipgenError; the pictures that are finished by then are saved.
    """
    from clipgen.pipeline.adapters import check_adapters

    target = files.output_target(options)
    inputs.check_images(run.settings for run in runs)
    check_adapters(run.settings for run in runs)
    runs = list(single(runs)) if options.exact else runs
    runs = with_twins(runs) if options.compare else runs
    files.check(target, [run.settings for run in runs], options)
    total = sum(run.settings.images for run in runs)
    if options.keep and options.keep > total:
        raise SettingsError(f"keep must be at most {total}, the number of pictures, got '{options.keep}'", field="keep")
    for model, replayed in dict.fromkeys((run.settings.model, run.replayed) for run in runs):
        require_model(model, report, offline=options.offline, replayed=replayed)
    for settings, replayed in dict.fromkeys((run.settings, run.replayed_clips) for run in runs):
        inputs.check_clips(settings, offline=options.offline or replayed)
    report.event("start", schema=EVENTS, clipgen=_version(), settings=runs[0].settings.to_dict(), images=total)
    with Interrupt() as interrupt, Bar(total, report) as bar:
        runner = Runner(total, options, target, report, bar, parent)
        runner.on_saved = on_saved
        try:
            runner.run(runs, interrupt)
        finally:
            runner.flush()
            report.data = summary(runner.finished)
        if interrupt.stopped:
            raise interrupt.cancelled(runner.finished, f"Stopped after {len(runner.finished)} of {total} pictures.")
    check_scores(runner.finished, options.min_score, report)
    check_required(runner.finished)


def require_model(model: str, report: Report, *, offline: bool, replayed: bool = False) -> ModelFolder:
    """Returns a model's location before torch is imported. A hub model is downloaded if it is missing.

    Args:
        model: A bundled name, a folder or a hub id.
        report: Shows that a download is running.
        offline: Forbids the download.
        replayed: The model is named by a picture, not by the user; it is never downloaded.

    Raises ModelNotFound, SettingsError.
    """
    from clipgen.models import find_model, parse_id

    try:
        with Bar(0, report) as bar:
            if parse_id(model).kind == "hub":
                bar.loading(f"Fetching {model}")
            return find_model(model, offline=offline or replayed)
    except ModelNotFound as error:
        if not replayed:
            raise
        hint = f"The picture names it: download it with clipgen models pull {model}, or choose another with --model."
        raise ModelNotFound(f"{error} {hint}", field="model") from error


def _version() -> str:
    from importlib.metadata import version

    return version("clipgen")
