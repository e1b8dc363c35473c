from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from clipgen.errors import ImageFileError
from clipgen.image_file import open_image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_format_opens_as_rgb(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (20, 10), (200, 30, 30)).save(tmp_path / "a", kind)
    image = open_image(tmp_path / "a")
    assert (image.mode, image.size) == ("RGB", (20, 10))
    assert all(abs(a - b) < 8 for a, b in zip(image.getpixel((5, 5)), (200, 30, 30), strict=True))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "1"])
def test_other_colour_spaces_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (9, 9)).save(tmp_path / "a", "JPEG" if mode == "CMYK" else "PNG")
    assert open_image(tmp_path / "a").mode == "RGB"


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").getpixel((1, 1)) == (255, 255, 255)


def test_exif_orientation_and_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (10, 20)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert open_image(tmp_path / "moving.webp").getpixel((4, 4)) == (255, 0, 0)


def _write_empty_png(path: Path, width: int) -> None:
    """Writes a PNG whose header has this width and that has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, 20_000 if width == 20_000 else 4_096, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def test_an_unreadable_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Image.new("RGB", (64, 64)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif")
    _write_empty_png(tmp_path / "bomb.png", 20_000)
    _write_empty_png(tmp_path / "large.png", 4_097)
    for name, message in (
        ("text.png", "cannot be opened: not a readable PNG, JPEG or WebP."),
        ("empty.png", "cannot be opened: not a readable PNG, JPEG or WebP."),
        ("cut.png", "cannot be opened: not a readable PNG, JPEG or WebP."),
        ("a.gif", "cannot be opened: not a readable PNG, JPEG or WebP."),
        ("none.png", "cannot be opened: No such file or directory."),
        ("large.png", "must have at most 16,777,216 pixels, got '16,781,312'."),
        ("bomb.png", "must have at most 16,777,216 pixels; it has far more."),
    ):
        with pytest.raises(ImageFileError) as caught:
            open_image(tmp_path / name)
        assert str(caught.value).endswith(message), name
