"""Reads the sets of drawings from npm packages: Fluent Emoji flat and 3D, Noto Emoji.

`npm pack` downloads one .tgz file per package, which is read without being unpacked. The packages are needed for
training and evaluation, not for generating images.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from clipgen.errors import ClipgenError
from clipgen.home import data_dir, install_command

PACKAGES = {
    "flat": "@iconify-json/fluent-emoji-flat",  # Microsoft, MIT
    "3d": "@lobehub/fluent-emoji-3d",  # Microsoft, MIT
    "noto": "@iconify-json/noto",  # Google, Apache 2.0
}
RASTER_SIZE = 340  # side of a rasterised SVG in pixels; more than the largest drawing in a scene of 256 pixels
VARIATION_SELECTOR = "\ufe0f"


def drawings_dir() -> Path:
    """Returns the folder of the packages: $CLIPGEN_DRAWINGS if set, else `drawings` in clipgen's data folder."""
    return Path(os.environ.get("CLIPGEN_DRAWINGS") or data_dir() / "drawings").expanduser()


def find_package(art: str) -> Path:
    """Returns the .tgz file of a set of drawings.

    Raises ClipgenError with the command that downloads the package if it is missing.
    """
    folder, package = drawings_dir(), PACKAGES[art]
    prefix = package.lstrip("@").replace("/", "-")
    files = sorted(folder.glob(f"{prefix}-[0-9]*.tgz"))
    if not files:
        raise ClipgenError(
            f"The drawings '{art}' were not found in '{folder}'. To download them: mkdir -p '{folder}' && "
            f"cd '{folder}' && npm pack {package}. To use another folder, set CLIPGEN_DRAWINGS."
        )
    return files[-1]


@cache
def read_drawing(emoji: str, art: str) -> Image.Image:
    """Returns the drawing of an emoji as RGBA, cropped to its visible pixels.

    Args:
        emoji: The emoji, with or without variation selectors.
        art: "flat", "3d" or "noto".

    Raises ClipgenError if the set has no drawing of it, or if the package or resvg-py is missing.
    """
    image = _webp(emoji, art) if art == "3d" else _svg(emoji, art)
    return image.crop(image.getchannel("A").getbbox())


def _svg(emoji: str, art: str) -> Image.Image:
    """Rasterises one icon of an Iconify package (SVG) at RASTER_SIZE."""
    try:
        import resvg_py
    except ImportError as error:
        raise ClipgenError(f"Drawings are rasterised by resvg-py. To install it: {install_command('train')}") from error
    icons, names = _iconify(art)
    name = next((names[code] for code in _codes(emoji) if code in names), None)
    if name is None:
        raise ClipgenError(f"The drawings '{art}' have no image of '{emoji}'.")
    icon = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
    width, height = (icon.get(key, icons[key]) for key in ("width", "height"))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}"'
        f' width="{RASTER_SIZE}" height="{RASTER_SIZE}">{icon["body"]}</svg>'
    )
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def _webp(emoji: str, art: str) -> Image.Image:
    """Reads one image of the package with WebP files."""
    files = _webp_files(art)
    data = next((files[code] for code in _codes(emoji) if code in files), None)
    if data is None:
        raise ClipgenError(f"The drawings '{art}' have no image of '{emoji}'.")
    return Image.open(io.BytesIO(data)).convert("RGBA")


def _codes(emoji: str) -> tuple[str, str, str]:
    """Returns the names an emoji may have in a package: hexadecimal code points, joined by hyphens.

    The three names are: as given, without variation selectors, and with one selector at the end.
    """
    given, bare = ("-".join(f"{ord(c):x}" for c in text) for text in (emoji, emoji.replace(VARIATION_SELECTOR, "")))
    return given, bare, f"{bare}-{ord(VARIATION_SELECTOR):x}"


@cache
def _iconify(art: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns icons.json (SVG bodies by name) and chars.json (names by code points) of an Iconify package."""
    with tarfile.open(find_package(art)) as package:
        icons, names = (json.load(_member(package, f"package/{file}.json")) for file in ("icons", "chars"))
    return icons, names


@cache
def _webp_files(art: str) -> dict[str, bytes]:
    """Returns the content of every WebP file of a package by its code points."""
    with tarfile.open(find_package(art)) as package:
        return {Path(m.name).stem: _member(package, m.name).read() for m in package if m.name.endswith(".webp")}


def _member(package: tarfile.TarFile, name: str) -> Any:
    file = package.extractfile(name)
    assert file is not None, name
    return file
