"""Many prompts over many processes, resumable: job files, job ids, and a journal beside the pictures."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clipgen.atomic import replace_file
from clipgen.errors import ClipgenError, OutputError, SettingsError
from clipgen.hashing import sha256_of
from clipgen.settings.checks import MAX_SEED, unknown_name
from clipgen.settings.settings import FIELDS, Settings, check_field, coerce

SCHEMA = "clipgen-journal/1"
JOURNAL = ".clipgen-journal.{}.jsonl"
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
# A1111's names in its "prompts from file" lines -> ours
A1111 = {"cfg_scale": "guidance_scale", "sampler_name": "scheduler", "batch_size": "images", "n_iter": "images"}
Item = TypeVar("Item")


@dataclass(frozen=True)
class Line:
    """One line of a job file: its number, from 1, and the Settings fields it sets, checked one by one."""

    number: int
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One picture of a batch: image `image` of a line, as Settings of its own; `id` names it for ever."""

    id: str
    line: int
    image: int
    settings: Settings


def read_lines(text: str, *, jsonl: bool = False) -> list[Line]:
    """Reads a job file: prompts, `# comments`, A1111 lines `--prompt "..." --steps 20`, or JSONL of Settings fields.

    JSONL is also meant when the first character is `{`. Raises SettingsError, naming the line.
    """
    parse = _json_fields if jsonl or text.lstrip().startswith("{") else _text_fields
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                lines.append(Line(number, parse(line.strip())))
            except SettingsError as error:
                raise in_line(number, error) from error
    if not lines:
        raise SettingsError("The job file holds no prompt.", field="prompt")
    return lines


def in_line(number: int, error: ClipgenError) -> SettingsError:
    """Returns an error with the number of the line that is at fault."""
    return SettingsError(f"Line {number}: {error}", field=error.field, allowed=error.allowed)


def _json_fields(line: str) -> dict[str, Any]:
    try:
        values = json.loads(line, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"not a JSON object ({error})") from error
    if not isinstance(values, dict):
        raise SettingsError("not a JSON object")
    return {name: check_field(_known(name), value) for name, value in values.items()}


def _text_fields(line: str) -> dict[str, Any]:
    if not line.startswith("--"):
        return {"prompt": check_field("prompt", line)}
    try:
        words = iter(shlex.split(line))
    except ValueError as error:
        raise SettingsError(f"a quotation mark is not closed ({error})") from error
    return dict(_flag(word, words) for word in words)


def _flag(word: str, rest: Iterator[str]) -> tuple[str, Any]:
    """Returns field and value of one `--name value` or `--name=value`; A1111's seed -1 is random."""
    spelled, equals, value = word.partition("=")
    if not spelled.startswith("--"):
        raise SettingsError(f"a flag such as --steps must come before '{word}'")
    name = spelled[2:].replace("-", "_")
    name = _known(A1111.get(name, name))
    text = value if equals else next(rest, None)
    if text is None:
        raise SettingsError(f"{spelled} needs a value", field=name)
    return name, None if name == "seed" and text == "-1" else coerce(name, text)


def _known(name: str) -> str:
    if name not in FIELDS:
        raise SettingsError(unknown_name("setting", name, FIELDS), field=name, allowed=FIELDS)
    return name


def make_jobs(lines: Sequence[tuple[int, Settings]]) -> list[Job]:
    """Returns the pictures of resolved lines, whose seed is set: image k has seed + k and an id of its own.

    id = first 16 hex of sha256(canonical JSON of the line's Settings, image index, which of several equal lines).
    """
    seen: Counter[str] = Counter()
    jobs = []
    for number, settings in lines:
        assert settings.seed is not None
        text = json.dumps(settings.to_dict(), sort_keys=True)
        for image in range(settings.images):
            key = json.dumps([text, image, seen[text]])
            single = settings.replace(seed=(settings.seed + image) % (MAX_SEED + 1), images=1)
            jobs.append(Job(sha256_of(key)[:16], number, image, single))
        seen[text] += 1
    return jobs


class Journal:
    """What a batch has finished, one JSON line a picture; each process appends to a file of its own.

    The first line of process 0's file is the job list, so that a resumed batch is known to be the same one.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self.path = folder / JOURNAL.format(rank)

    def start(self, lines: Sequence[tuple[int, Settings]]) -> None:
        """Begins a new batch: removes the journals of the one before and writes the job list; raises OutputError."""
        head = {"schema": SCHEMA, "lines": [settings.to_dict() for _, settings in lines]}
        with _output_errors(self.path):
            for old in self._files():
                old.unlink(missing_ok=True)
            replace_file(self.path, json.dumps(head) + "\n")

    def add(self, job: str, path: Path | None) -> None:
        """Notes that the picture of a job id is on the disk, None for one that --keep dropped; raises OutputError."""
        line = {"job": job, "path": path and os.path.relpath(path, self.folder)}
        with _output_errors(self.path), self.path.open("ab+") as file:
            file.seek(max(0, file.tell() - 1))
            mend = b"\n" if file.read(1) not in (b"", b"\n") else b""  # the line before was torn by a kill
            file.write(mend + json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list[dict[str, Any]] | None:
        """Returns the Settings of each line of the batch that was begun here, None when there is none."""
        heads = [entry["lines"] for entry in self._entries() if entry.get("schema") == SCHEMA]
        return heads[0] if heads else None

    def done(self, jobs: Sequence[Job]) -> set[str]:
        """Returns the ids of finished pictures: noted with the file there, or in a file that carries the id itself."""
        noted = {entry["job"]: entry["path"] for entry in self._entries() if "job" in entry}
        done = {job for job, path in noted.items() if path is None or (self.folder / path).is_file()}
        known = {(self.folder / path).resolve() for path in noted.values() if path}
        wanted = {job.id for job in jobs} - done
        return (done | self._unnoted(known) if wanted else done) & {job.id for job in jobs}

    def _unnoted(self, known: set[Path]) -> set[str]:
        """Returns the ids inside pictures that no line tells of: the process died between picture and line."""
        from clipgen.image_file import read_settings

        found = set()
        for path in self.folder.rglob("*"):
            if path.suffix.lower() in PICTURES and path.resolve() not in known:
                try:
                    record = read_settings(path).record
                except ClipgenError:
                    continue
                if record:
                    found.add(str(record.get("job")))
        return found

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(JOURNAL.format("*")))

    def _entries(self) -> Iterator[dict[str, Any]]:
        """Yields the lines of every process's journal; what a kill tore is left out."""
        for file in self._files():
            for line in file.read_text("utf-8", "replace").splitlines():
                with suppress(ValueError):
                    yield json.loads(line)


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror}", field="output") from error


def same_lines(before: Sequence[Mapping[str, Any]], now: Sequence[tuple[int, Settings]]) -> list[tuple[int, Settings]]:
    """Returns the lines with the seeds that were drawn the first time; raises SettingsError naming the first change."""
    if len(before) != len(now):
        raise SettingsError(f"The job list has {len(now)} prompts and had {len(before)}; start anew without --resume.")
    same = []
    for old, (number, settings) in zip(before, now, strict=True):
        seeded = settings if settings.seed is not None else settings.replace(seed=old.get("seed"))
        for name, value in seeded.to_dict().items():
            if old.get(name) != value:
                message = f"Line {number} has changed: {name} was '{old.get(name)}' and is '{value}'"
                raise SettingsError(f"{message}; start anew without --resume.", field=name)
        same.append((number, seeded))
    return same


@dataclass(frozen=True)
class Share:
    """What one of several processes does: its rank, how many there are, its device."""

    rank: int = 0
    processes: int = 1
    device: str = "auto"

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Returns this process's part of a list that all of them have."""
        if self.processes == 1:
            return list(items)
        from accelerate import PartialState

        with PartialState().split_between_processes(list(items)) as mine:
            return list(mine)

    def wait(self) -> None:
        """Waits until every process is here."""
        if self.processes > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


@contextmanager
def sharing() -> Iterator[Share]:
    """Joins the processes that `accelerate launch` started; alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Share()
        return
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU") == "True" or not torch.cuda.is_available())
    device = "cpu" if state.device.type == "cpu" else str(state.device)
    try:
        yield Share(state.process_index, state.num_processes, device)
    finally:
        state.destroy_process_group()
