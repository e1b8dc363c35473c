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
from clipgen.settings.settings import Settings

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
        runs.append(Run(settings, settings.title, replayed=frozenset(resolved.replayed)))
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
    for model, replayed in dict.fromkeys((run.settings.model, "model" in run.replayed) for run in runs):
        require_model(model, report, options.device, options.dtype, offline=options.offline, replayed=replayed)
    for vae, replayed in dict.fromkeys((run.settings.vae, "vae" in run.replayed) for run in runs):
        inputs.require_vae(vae, offline=options.offline or replayed)
    for settings, replayed in dict.fromkeys((run.settings, "clip_models" in run.replayed) for run in runs):
        inputs.check_clips(settings, offline=options.offline or replayed)
    for settings in dict.fromkeys(run.settings for run in runs):
        _check_scores(settings, options)
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


def _check_scores(settings: Settings, options: Options) -> None:
    """Raises SettingsError if an option needs CLIP scores that these settings do not give."""
    used = {"keep": options.keep, "min_score": options.min_score, "require": options.require}
    for feature in (name for name, value in used.items() if value is not None):
        inputs.check_scorer(settings, feature)
    if options.min_score is not None and not settings.prompt.strip():
        raise SettingsError("min_score compares pictures with their prompt, and there is none", field="min_score")


def require_model(
    model: str, report: Report, device: str = "auto", dtype: str = "auto", *, offline: bool, replayed: bool = False
) -> ModelFolder:
    """Returns a model's location. A hub model is downloaded if it is missing; without one, torch is not imported.

    Args:
        model: A bundled name, a folder, a file or a hub id.
        report: Shows that a download is running.
        device: Where it will run, which decides on the precision of the files.
        dtype: The precision it will run in.
        offline: Forbids the download.
        replayed: The model is named by a picture, not by the user; it is never downloaded.

    Raises ModelNotFound, SettingsError.
    """
    from clipgen.models import find_model, is_offline, parse_id

    try:
        if offline or replayed or is_offline() or parse_id(model).kind in ("bundled", "folder"):
            return find_model(model)
        from clipgen.families.fetch import fetch_model

        with Bar(0, report) as bar:
            bar.loading(f"Fetching {model}")
            return fetch_model(model, device, dtype)
    except ModelNotFound as error:
        if not replayed:
            raise
        cure = f"download it with clipgen models pull {model}, or " if parse_id(model).kind == "hub" else ""
        message = f"{error} The picture names it: {cure}choose another with --model."
        raise ModelNotFound(message, field="model") from error


def _version() -> str:
    from importlib.metadata import version

    return version("clipgen")
