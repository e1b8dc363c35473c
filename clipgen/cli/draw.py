"""Draws runs and tells about it: what generate, again and batch have in common."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Sequence

from clipgen.cli import files
from clipgen.cli.flags import Options
from clipgen.cli.interrupt import Interrupt
from clipgen.cli.layers import Resolved
from clipgen.cli.plan import print_plan
from clipgen.cli.progress import Bar
from clipgen.cli.report import Report
from clipgen.cli.studio import Run, Saved, Studio, check_scores
from clipgen.errors import SettingsError
from clipgen.settings import MAX_DRAWN_SEED, MAX_SEED

EVENTS = "clipgen-events/1"


def draw_plan(plan: Sequence[Resolved], options: Options, report: Report, *, parent: int | None = None) -> None:
    """Draws what the layers resolved to, or with --dry-run only says what that is."""
    if options.dry_run:
        print_plan(plan, report)
        return
    settings = [resolved.settings() for resolved in plan]
    draw([Run(each, each.prompt) for each in settings], options, report, parent=parent)


def draw(
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
    files.check(place, [run.settings for run in runs], options)
    runs = list(_single(runs)) if options.exact else runs
    total = sum(run.settings.images for run in runs)
    if options.keep and options.keep > total:
        raise SettingsError(f"keep must be at most the {total} pictures asked for, got '{options.keep}'", field="keep")
    find_models([run.settings.model for run in runs], options.offline, report)
    report.event("start", schema=EVENTS, clipgen=_version(), settings=runs[0].settings.to_dict(), images=total)
    shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not (options.quiet or options.json)
    with Interrupt() as interrupt, Bar(total, shown=shown) as bar:
        studio = Studio(total, options, place, report, bar, parent)
        studio.on_saved = on_saved
        try:
            studio.draw(runs, interrupt)
        finally:
            studio.flush()
        if interrupt.stopped:
            raise interrupt.cancelled(studio.written, f"Stopped after {len(studio.written)} of {total} pictures.")
    check_scores(studio.written, options.min_score, report)


def find_models(names: Sequence[str], offline: bool, report: Report) -> None:
    """Finds every model before anything heavy is imported, fetching what is not here; raises ModelNotFound."""
    if report.json or report.quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the hub's own bar, read when it is imported
    from clipgen.models import find_model

    for name in dict.fromkeys(names):
        find_model(name, offline=offline)


def _single(runs: Sequence[Run]) -> Iterator[Run]:
    """Yields runs of one picture each: image k of a run is seed + k alone."""
    for run in runs:
        seed = run.settings.seed if run.settings.seed is not None else secrets.randbelow(MAX_DRAWN_SEED + 1)
        for k in range(run.settings.images):
            yield Run(run.settings.replace(seed=(seed + k) % (MAX_SEED + 1), images=1), run.group, run.job)


def _version() -> str:
    from importlib.metadata import version

    return version("clipgen")
