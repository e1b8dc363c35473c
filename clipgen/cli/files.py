"""Where and how pictures are saved: --output and config.toml, checked before the first step."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from clipgen.atomic import replace_file
from clipgen.cli.config_file import read_user
from clipgen.cli.flags import Options
from clipgen.errors import OutputError, SettingsError
from clipgen.settings.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipgen.image_file import Format
    from clipgen.pipeline.result import Result

STDOUT = "-"
OVERHEAD = 64 * 1024  # bytes of the settings in a file
QUALITY = 92
DEFAULT_FOLDER = "outputs/$date/$slug"
PREVIEW_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".png": "PNG"}


@dataclass(frozen=True)
class OutputTarget:
    """Where and how the pictures of a command are saved; `template` as in image_file.output_path, None the default."""

    template: str | None
    format: Format
    quality: int
    metadata: bool
    moment: datetime

    @property
    def to_stdout(self) -> bool:
        """Whether the bytes of the picture are written to stdout."""
        return self.template == STDOUT


def output_target(options: Options) -> OutputTarget:
    """Returns the target according to the options, then to config.toml; raises SettingsError."""
    from clipgen.image_file import format_of

    tables = read_user().tables
    template = options.output if options.output is not None else tables.get("output.path")
    by_name = format_of(template) if template != STDOUT else None
    format = cast("Format", options.format or by_name or tables.get("output.format") or "png")
    if by_name and options.format and by_name != options.format:
        raise SettingsError(f"--format {options.format} does not fit the name '{template}'", field="format")
    return OutputTarget(
        template=template,
        format=format,
        quality=options.quality or tables.get("output.quality") or QUALITY,
        metadata=not options.no_metadata,
        moment=datetime.now(),
    )


def literal_folder(target: OutputTarget, settings: Settings) -> Path:
    """Returns the folder of all pictures of a batch: the part of --output before its first `$`."""
    from clipgen.image_file import output_path

    template = target.template if target.template is not None else DEFAULT_FOLDER
    if "$" not in os.path.dirname(template):
        return output_path(template, settings=settings, seed=0, moment=target.moment, format=target.format)[0]
    parts = Path(template).parts
    first = next(i for i, part in enumerate(parts) if "$" in part)
    return Path(*parts[:first]).expanduser()


def check(target: OutputTarget, runs: Sequence[Settings], options: Options) -> None:
    """Checks that every picture can be written; raises SettingsError for stdout, OutputError for folders."""
    from clipgen.image_file import check_writable, output_path

    if target.to_stdout:
        _check_stdout(runs, options)
        return
    needed: dict[Path, int] = {}
    for run in runs:
        folder, _, _ = output_path(
            target.template, settings=run, seed=run.seed or 0, moment=target.moment, format=target.format, percent=0.0
        )
        needed[folder] = needed.get(folder, 0) + run.images * (3 * (run.width or 512) * (run.height or 512) + OVERHEAD)
    for folder, size in needed.items():
        check_writable(folder, size)


def _check_stdout(runs: Sequence[Settings], options: Options) -> None:
    if options.json:
        raise SettingsError("--output - and --json exclude each other", field="output")
    if sum(run.images for run in runs) != 1:
        raise SettingsError("--output - is for one picture; draw one, or name a folder", field="output")
    if sys.stdout.isatty():
        raise SettingsError(
            "--output - writes bytes; redirect them to a file: clipgen ... -o - > fox.png", field="output"
        )


def save(result: Result, target: OutputTarget, *, job: str | None = None, label: str = "") -> str | None:
    """Writes a finished Result, sets its path and returns the SHA-256 of the file; raises OutputError.

    `label` is inserted before the file's suffix. On stdout the path stays None, and None is returned.
    """
    from clipgen.hashing import sha256_of
    from clipgen.image_file import encode_image, fit_record, output_path, save_bytes

    record = {**result.metadata, "job": job}
    data = encode_image(result.image, record, format=target.format, quality=target.quality, metadata=target.metadata)
    if target.metadata:
        result.warnings += tuple(fit_record(record, target.format)[1])
    if target.to_stdout:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return None
    folder, stem, suffix = output_path(
        target.template,
        settings=result.settings,
        seed=result.seed,
        moment=target.moment,
        format=target.format,
        percent=result.clip.percentile if result.clip else None,
    )
    result.path = save_bytes(data, folder, stem + label, suffix)
    return sha256_of(data)


def replace_preview(image: Image, path: Path) -> None:
    """Replaces the preview file atomically; raises OutputError."""
    buffer = io.BytesIO()
    image.save(buffer, PREVIEW_FORMATS.get(path.suffix.lower(), "PNG"))
    try:
        replace_file(path, buffer.getvalue())
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror}", field="preview") from error
