"""`clipgen batch`: draws many prompts with one model load; an interrupted batch can be resumed."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipgen.cli import execute, files, layers
from clipgen.cli.flags import FILES, PICTURE, Flags, takes_flags
from clipgen.cli.layers import Layer, Resolved
from clipgen.cli.output import Report
from clipgen.cli.prompts import STDIN
from clipgen.cli.resolve import flag_layers, print_plan, surroundings
from clipgen.cli.runs import Run
from clipgen.errors import ClipgenError, SettingsError
from clipgen.settings.checks import MAX_DRAWN_SEED
from clipgen.settings.settings import Note, Settings, coerce

if TYPE_CHECKING:
    from clipgen.batch import Journal, Line, Share


@takes_flags(without=("prompt", "prompt_template"))
def batch(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Prompts, one per line; - is stdin.", rich_help_panel=PICTURE)
    ],
    resume: Annotated[
        bool,
        typer.Option("--resume", metavar="", help="Draw only what an interrupted run left.", rich_help_panel=FILES),
    ] = False,
    *,
    flags: Flags,
) -> None:
    """Draw every line of a file; can be resumed.

    A line is a prompt, or --prompt "..." --steps 20, or a JSON object of settings.

    clipgen batch prompts.txt --steps 20           the settings in a line override the options
    clipgen batch prompts.txt --resume             after an interruption
    accelerate launch -m clipgen batch FILE        on every GPU at once
    """
    options = flags.options
    with Report(json=options.json, quiet=options.quiet, verbose=options.verbose) as report:
        from clipgen import batch as jobs

        if files.output_target(options).to_stdout:
            raise SettingsError("batch cannot write to stdout; name a folder with --output", field="output")
        lines = _resolved(jobs.read_lines(_read(file), jsonl=file.endswith(".jsonl")), flags, report)
        if options.dry_run:
            print_plan([run for _, run in lines], report)
            return
        with jobs.sharing() as share:
            if share.processes > 1 and options.json:
                raise SettingsError("--json works with one process only", field="json")
            report.quiet = report.quiet or share.rank > 0
            _draw([(number, run.settings()) for number, run in lines], flags, report, share, resume=resume)


def _read(file: str) -> str:
    """Returns the text of a job file or of stdin; raises SettingsError."""
    try:
        data = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(f"'{file}' cannot be read: {error.strerror}", field="file") from error
    return data.decode("utf-8-sig", "surrogateescape")


def _resolved(lines: Sequence[Line], flags: Flags, report: Report) -> list[tuple[int, Resolved]]:
    """Returns each line merged with all layers, its own values on top; raises SettingsError with the line number."""
    from clipgen.batch import in_line

    seed = {"seed": coerce("seed", flags.fields["seed"])} if "seed" in flags.fields else {}
    below = [*flag_layers(flags, seed), *surroundings(report)]
    resolved = []
    for line in lines:
        try:
            run = layers.resolve([Layer(f"line {line.number}", line.fields), *below])
            run.settings()
        except ClipgenError as error:
            raise in_line(line.number, error) from error
        resolved.append((line.number, run))
    return resolved


def _draw(lines: list[tuple[int, Settings]], flags: Flags, report: Report, share: Share, *, resume: bool) -> None:
    """Draws this process's share of the jobs that are not done yet; process 0 writes the list of lines."""
    from clipgen.batch import Journal, make_jobs, same_lines

    folder = files.literal_folder(files.output_target(flags.options), lines[0][1])
    journal = Journal(folder, share.rank)
    if share.rank == 0:
        lines = _begin(journal, lines, report, resume)
    share.wait()
    if share.rank:
        lines = same_lines(journal.lines() or [], lines)
    jobs = make_jobs(lines)
    done = journal.done(jobs) if resume else set()
    if done:
        report.say(f"{sum(job.id in done for job in jobs)} of {len(jobs)} pictures are already there.")
    own_lines = set(share.of(list(dict.fromkeys(job.line for job in jobs))))  # whole lines, for --keep
    todo = [job for job in jobs if job.id not in done and job.line in own_lines]
    options = flags.options
    if share.processes > 1:
        options = replace(options, device=share.device, quiet=options.quiet or share.rank > 0)
    if todo:
        runs = [Run(job.settings, job.line, job.id) for job in todo]
        execute.execute_runs(runs, options, report, on_saved=journal.add)


def _begin(
    journal: Journal, lines: list[tuple[int, Settings]], report: Report, resume: bool
) -> list[tuple[int, Settings]]:
    """Starts or resumes the journal; returns the lines with a seed each."""
    from clipgen.batch import same_lines

    before = journal.lines()
    if resume and before is not None:
        return same_lines(before, lines)
    if resume:
        message = f"No interrupted batch in {journal.folder}: drawing all prompts."
        report.note(Note("nothing-to-resume", None, message))
    seeded = [(number, _with_seed(settings)) for number, settings in lines]
    journal.start(seeded)
    return seeded


def _with_seed(settings: Settings) -> Settings:
    return settings if settings.seed is not None else settings.replace(seed=secrets.randbelow(MAX_DRAWN_SEED + 1))
