"""Opens images of users: within limits, with the EXIF orientation applied, as RGB."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from clipgen.errors import ImageFileError
from clipgen.image_file.paths import printable_path

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 50 * 2**20
MAX_PIXELS = 16_777_216


def open_image(path: str | Path) -> Image:
    """Returns a PNG, JPEG or WebP file as an RGB image, upright, the first frame of an animation.

    Transparent pixels become white. Raises ImageFileError for missing and damaged files, other formats, and, before
    decoding pixels, files of more than 50 MiB or 16,777,216 pixels.
    """
    from PIL import Image, ImageOps

    name, file = printable_path(path), Path(path)
    try:
        if (size := file.stat().st_size) > MAX_BYTES:
            raise ImageFileError(f"Picture '{name}' must be at most {MAX_BYTES:,} bytes, got '{size:,}'.")
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as opened:
            if (pixels := opened.width * opened.height) > MAX_PIXELS:
                raise ImageFileError(f"Picture '{name}' must have at most {MAX_PIXELS:,} pixels, got '{pixels:,}'.")
            upright = ImageOps.exif_transpose(opened)
            if "A" not in upright.getbands() and "transparency" not in upright.info:
                return upright.convert("RGB")
            rgba = upright.convert("RGBA")
    except ImageFileError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageFileError(f"Picture '{name}' must have at most {MAX_PIXELS:,} pixels; it has far more.") from error
    except (OSError, SyntaxError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a readable PNG, JPEG or WebP"
        raise ImageFileError(f"Picture '{name}' cannot be opened: {reason}.") from error
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")
