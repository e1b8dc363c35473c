"""Where pictures go: the choices of --output and config.toml, checked before the first step, and the saving itself."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from clipgen.cli.config_file import read_user
from clipgen.cli.flags import Options
from clipgen.errors import OutputError, SettingsError
from clipgen.settings.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipgen.image_file import Format
    from clipgen.pipeline.result import Result

STDOUT = "-"
OVERHEAD = 64 * 1024  # bytes of settings beside the pixels
QUALITY = 92
DEFAULT_FOLDER = "outputs/$date/$slug"
PREVIEW_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".png": "PNG"}


@dataclass(frozen=True)
class OutputTarget:
    """How a run's pictures are written; `template` is that of image_file.output_path, None the default place."""

    template: str | None
    format: Format
    quality: int
    metadata: bool
    moment: datetime

    @property
    def to_stdout(self) -> bool:
        """Whether the bytes of the one picture go to stdout."""
        return self.template == STDOUT


def target(options: Options) -> OutputTarget:
    """Returns the target that the flags and then config.toml ask for; raises SettingsError."""
    from clipgen.image_file import format_of

    tables = read_user().tables
    template = options.output if options.output is not None else tables.get("output.path")
    by_name = format_of(template) if template != STDOUT else None
    wanted = cast("Format", options.format or by_name or tables.get("output.format") or "png")
    if by_name and options.format and by_name != options.format:
        raise SettingsError(f"--format {options.format} does not fit the name '{template}'", field="format")
    return OutputTarget(
        template=template,
        format=wanted,
        quality=options.quality or tables.get("output.quality") or QUALITY,
        metadata=not options.no_metadata,
        moment=datetime.now(),
    )


def literal_folder(place: OutputTarget, settings: Settings) -> Path:
    """Returns the folder all pictures of a batch lie under: what --output says before its first `$`."""
    from clipgen.image_file import output_path

    template = place.template if place.template is not None else DEFAULT_FOLDER
    if "$" not in os.path.dirname(template):
        return output_path(template, settings=settings, seed=0, moment=place.moment, format=place.format)[0]
    parts = Path(template).parts
    first = next(i for i, part in enumerate(parts) if "$" in part)
    return Path(*parts[:first]).expanduser()


def check(place: OutputTarget, runs: Sequence[Settings], options: Options) -> None:
    """Makes sure that every picture can be written; raises SettingsError for stdout, OutputError for folders."""
    from clipgen.image_file import check_writable, output_path

    if place.to_stdout:
        _check_stdout(runs, options)
        return
    needed: dict[Path, int] = {}
    for run in runs:
        folder, _, _ = output_path(
            place.template, settings=run, seed=run.seed or 0, moment=place.moment, format=place.format, percent=0.0
        )
        needed[folder] = needed.get(folder, 0) + run.images * (3 * (run.width or 512) * (run.height or 512) + OVERHEAD)
    for folder, size in needed.items():
        check_writable(folder, size)


def _check_stdout(runs: Sequence[Settings], options: Options) -> None:
    if options.json:
        raise SettingsError("--output - and --json exclude each other", field="output")
    if sum(run.images for run in runs) != 1:
        raise SettingsError("--output - takes one picture; ask for one, or name a folder", field="output")
    if sys.stdout.isatty():
        raise SettingsError("--output - writes bytes; send them to a file: clipgen ... -o - > fox.png", field="output")


def save(result: Result, place: OutputTarget, *, job: str | None = None, label: str = "") -> str | None:
    """Writes a finished Result, sets its path and returns the SHA-256 of the file; raises OutputError.

    `label` goes between the file's name and its suffix. Bytes that go to stdout leave the path None, and so is the
    SHA-256.
    """
    from clipgen.image_file import digest_of, encode_image, fit_record, output_path, save_bytes

    record = {**result.metadata, "job": job}
    data = encode_image(result.image, record, format=place.format, quality=place.quality, metadata=place.metadata)
    if place.metadata:
        result.warnings += tuple(fit_record(record, place.format)[1])
    if place.to_stdout:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return None
    folder, stem, suffix = output_path(
        place.template,
        settings=result.settings,
        seed=result.seed,
        moment=place.moment,
        format=place.format,
        percent=result.clip.percentile if result.clip else None,
    )
    result.path = save_bytes(data, folder, stem + label, suffix)
    return digest_of(data)


def replace_preview(image: Image, path: Path) -> None:
    """Puts the newest preview in the place of the one before, never half written; raises OutputError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        image.save(temporary, PREVIEW_FORMATS.get(path.suffix.lower(), "PNG"))
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"'{path}' cannot be written: {error.strerror}", field="preview") from error
