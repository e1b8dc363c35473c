"""Slugs, file name templates and the values of `--output`, including hostile ones."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from clipgen.errors import OutputError, SettingsError
from clipgen.image_file import format_of, output_path, save_bytes, slug
from clipgen.settings.settings import Settings
from image_file.samples import FOX

MOMENT = datetime(2026, 11, 23, 7, 5, 9)


@pytest.fixture(autouse=True)
def _empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def path_of(template: str | None, settings: Settings = FOX, **options: Any) -> str:
    folder, stem, suffix = output_path(template, settings=settings, seed=42, moment=MOMENT, **options)
    return str(folder / (stem + suffix))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a fox in snow", "a-fox-in-snow"),
        ("A  Fox,\n(in:1.3) snow!!", "a-fox-in-1-3-snow"),
        ("Crème Brûlée №5", "creme-brulee-no5"),
        ("雪の中の狐", "image"),
        ("🦊", "image"),
        ("...", "image"),
        ("CON", "image"),
        ("Lpt1", "image"),
        ("con man", "con-man"),
        ("../../etc/passwd", "etc-passwd"),
        ("-rf *", "rf"),
        ("$HOME `id` ;ls", "home-id-ls"),
        ("\u202egnp.exe", "gnp-exe"),
        ("é", "e"),
        ("e\u0301", "e"),
        ("word " * 30, "-".join(["word"] * 12)),
        ("x" * 300, "x" * 60),
    ],
)
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected
    assert len(expected) <= 60


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "outputs/2026-11-23/a-fox-in-snow-42.png"),
        ("fox.jpg", "fox.jpg"),
        ("a/b/Fox 1.JPEG", "a/b/Fox 1.JPEG"),
        ("../fox.webp", "../fox.webp"),
        ("/abs/fox.png", "/abs/fox.png"),
        ("pics", "pics/a-fox-in-snow-42.png"),
        ("pics/", "pics/a-fox-in-snow-42.png"),
        ("~nobody-of-that-name/x.png", "~nobody-of-that-name/x.png"),
        (".", "a-fox-in-snow-42.png"),
        ("v1.5", "v1.5/a-fox-in-snow-42.png"),
        ("pics/$date/", "pics/2026-11-23/a-fox-in-snow-42.png"),
        ("$slug", "a-fox-in-snow.png"),
        ("$date-$time-${seed}.webp", "2026-11-23-07-05-09-42.webp"),
        ("$model/$preset/$steps-$scheduler-$guidance_scale", "storybook/none/30-dpm++_2m_karras-5.png"),
        ("$slug-$percent", "a-fox-in-snow-none.png"),
        ("cost-$$5-$seed", "cost-$5-42.png"),
        ("$n-$slug", "0001-a-fox-in-snow.png"),
    ],
)
def test_output(template: str | None, expected: str) -> None:
    assert path_of(template) == expected


def test_the_format_sets_the_suffix_if_the_name_has_none() -> None:
    assert path_of(None, format="jpeg").endswith("-42.jpg")
    assert path_of("$slug", format="webp") == "a-fox-in-snow.webp"
    assert path_of("fox.png", format="webp") == "fox.png"
    assert [format_of(name) for name in (None, "a/", "fox.JPG", "$slug.webp", "fox.png", "$slug")] == [
        None,
        None,
        "jpeg",
        "webp",
        "png",
        None,
    ]


def test_a_folder_with_an_image_suffix_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "album.png").mkdir()
    assert path_of("album.png") == "album.png/a-fox-in-snow-42.png"


def test_tilde_expands_to_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert path_of("~/pics/$seed") == "/home/ann/pics/42.png"


def test_percent_has_no_decimals() -> None:
    assert path_of("$slug-$percent", percent=97.4) == "a-fox-in-snow-97.png"


@pytest.mark.parametrize("template", ["$prompt", "$slugs", "${user}-$seed", "$", "$-x", "${slug", "a$ b", "$1"])
def test_unknown_placeholders_are_refused_with_a_list(template: str) -> None:
    with pytest.raises(SettingsError, match=r"Names: \$date \$time \$n \$seed \$slug ") as caught:
        path_of(template)
    assert caught.value.field == "output"
    assert "\n" not in str(caught.value)


def test_the_number_is_refused_in_a_folder_name() -> None:
    with pytest.raises(SettingsError, match="works in the file's name only"):
        path_of("$n/$slug")


@pytest.mark.parametrize("name", ["fox.gif", "a/fox.TIFF", "$slug.avif"])
def test_other_formats_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"^Unknown picture format '\.\w+'\. Formats: png, jpeg, webp\.$"):
        path_of(name)


@pytest.mark.parametrize("name", ["", "a\0b.png", "a\nb.png", "a\udcff.png", "\x1b[2J.png"])
def test_unprintable_paths_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="output must be a path in plain characters"):
        path_of(name)


@pytest.mark.parametrize(
    "model", ["../../../etc/cron.d/x", "org/name", "./a/../b", "~/x", "..", "./-rf", "a\u202eb", "$seed", r"C:\a\b"]
)
def test_no_model_name_escapes_the_output_folder(model: str) -> None:
    folder, stem, _ = output_path("out/$model-$seed", settings=FOX.replace(model=model), seed=42, moment=MOMENT)
    assert folder == Path("out")
    assert stem.endswith("-42")
    assert not set(stem) & set("/\\$\u202e")
    assert not stem.startswith((".", "-"))


def test_the_number_follows_the_highest_one_with_the_same_prefix(tmp_path: Path) -> None:
    for name in ("0007-a.png", "0012-b.webp", "99999-x.png.txt", "fox-0100.png", "12-x.png", ".0500.tmp"):
        (tmp_path / name).write_bytes(b"")
    assert path_of("$n") == "100000.png"
    (tmp_path / "99999-x.png.txt").unlink()
    assert path_of("$n-$slug") == "0013-a-fox-in-snow.png"
    assert path_of("fox-${n}_$seed") == "fox-0101_42.png"
    assert path_of("below/$n") == "below/0001.png"


def test_numbers_increase_with_each_saved_file() -> None:
    saved = []
    for _ in range(3):
        folder, stem, suffix = output_path("a/$n", settings=FOX, seed=42, moment=MOMENT)
        saved.append(save_bytes(b"x", folder, stem, suffix).name)
    assert saved == ["0001.png", "0002.png", "0003.png"]


@pytest.mark.parametrize("template", ["x" * 300 + ".png", "雪" * 100 + ".png", "$slug" * 10, "$slug-" * 40 + "$n.jpeg"])
def test_a_file_name_has_at_most_120_bytes(template: str, tmp_path: Path) -> None:
    folder, stem, suffix = output_path(template, settings=FOX, seed=42, moment=MOMENT)
    assert 100 < len(os.fsencode(f"{stem}-1234567{suffix}")) <= 120
    made = [save_bytes(b"x", tmp_path / folder, stem, suffix) for _ in range(2)]
    assert made[1].name == f"{stem}-1{suffix}"


@pytest.mark.parametrize("name", ["con.png", "NUL.png", "lpt9.x.png", "aux.jpg"])
def test_windows_device_names_get_a_prefix(name: str) -> None:
    assert path_of(name) == f"image-{name}"


def test_a_symbolic_link_in_the_expanded_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "2026-11-23").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"'outputs/2026-11-23' is a symbolic link"):
        path_of(None)
    with pytest.raises(OutputError, match="is a symbolic link"):
        path_of("outputs/$date/more/$seed")
    assert path_of("outputs/2026-11-23/$seed") == "outputs/2026-11-23/42.png"  # the user named this folder explicitly
