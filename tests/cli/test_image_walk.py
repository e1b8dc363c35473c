"""score, rank and classify on many files, including unreadable ones; no result is lost."""

from __future__ import annotations

import signal
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from clipgen.cli import image_walk

from .conftest import Run
from .test_interrupt import signal_after

ROSE, LEAF = (200, 40, 40), (30, 160, 60)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder of two readable images."""
    folder = tmp_path / "album"
    folder.mkdir()
    for name, colour in (("a.png", ROSE), ("b.png", LEAF)):
        Image.new("RGB", (140, 128), colour).save(folder / name)
    return folder


def write_huge_png(path: Path) -> None:
    """Writes a PNG whose header says 20,000 x 20,000 pixels."""
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def add_difficult_files(folder: Path) -> None:
    """Adds three files that cannot be read and three unusual ones that can."""
    (folder / "c.png").write_text("this is text")
    (folder / "d.png").write_bytes(b"")
    write_huge_png(folder / "e.png")
    frames = [Image.new("RGB", (64, 64), colour) for colour in (ROSE, LEAF)]
    frames[0].save(folder / "f.webp", save_all=True, append_images=frames[1:])
    Image.new("CMYK", (64, 64), (0, 200, 200, 0)).save(folder / "g.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 64), LEAF).save(folder / "h.jpg", exif=exif)


class TestScore:
    def test_a_folder_by_two_texts(self, run: Run, album: Path) -> None:
        ran = run("score", "album", "-p", "red", "-p", "green")
        assert (ran.code, ran.err) == (0, "")
        cells = [line.split("\t") for line in ran.lines]
        assert [tuple(row[2:]) for row in cells] == [
            (f"album/{name}.png", text) for name in "ab" for text in ("red", "green")
        ]
        assert all(row[0].endswith("%") for row in cells)
        assert {row[1] for row in cells} <= {"weak", "fair", "good", "strong"}

    def test_by_the_prompt_in_the_file(self, run: Run) -> None:
        run("a (fox:1.2)", "-s", "3", "--steps", "2", "-o", "fox.png", "--no-history")
        [line] = run("score", "fox.png").lines
        assert line.split("\t")[2:] == ["fox.png", "a fox"]

    def test_a_file_without_prompt_is_an_error(self, run: Run, album: Path) -> None:
        ran = run("score", "album/a.png")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.endswith("Give a text with -p.\n")
        assert len(ran.err.splitlines()) == 1

    def test_verbose_prints_all_scores(self, run: Run, album: Path) -> None:
        [line] = run("score", "album/a.png", "-p", "red", "-v").lines
        similarity, clip_score, model = line.split("\t")[4:]
        assert (float(clip_score) >= 0, -1 <= float(similarity) <= 1, model) == (True, True, "storybook/clip")

    def test_json(self, run: Run, album: Path) -> None:
        ran = run("score", "album", "-p", "red", "--json")
        assert [event["type"] for event in ran.events] == ["picture", "picture", "envelope"]
        assert ran.data["count"] == 2
        assert ran.data["pictures"] == [{k: e[k] for k in ("path", "text", "clip")} for e in ran.events[:2]]
        assert set(ran.data["pictures"][0]["clip"]) == {"model", "similarity", "score", "percentile", "captions"}

    def test_a_text_over_the_token_limit_is_a_warning(self, run: Run, album: Path) -> None:
        ran = run("score", "album", "-p", "red " * 40)
        assert ran.code == 0
        assert ran.err.count("warning: ") == 1
        assert "is longer than the 32 tokens CLIP reads" in ran.err


class TestUnreadableFiles:
    def test_they_are_reported_counted_and_skipped(self, run: Run, album: Path) -> None:
        add_difficult_files(album)
        ran = run("score", "album", "-p", "red")
        assert [Path(line.split("\t")[2]).name for line in ran.lines] == ["a.png", "b.png", "f.webp", "g.jpg", "h.jpg"]
        assert ran.code == 1
        assert ran.err.splitlines() == [
            "clipgen: Picture 'album/c.png' cannot be opened: not a readable PNG, JPEG or WebP.",
            "clipgen: Picture 'album/d.png' cannot be opened: not a readable PNG, JPEG or WebP.",
            "clipgen: Picture 'album/e.png' must have at most 16,777,216 pixels; it has far more.",
            "clipgen: 3 of 8 pictures could not be read.",
        ]

    def test_json_has_fault_events(self, run: Run, album: Path) -> None:
        add_difficult_files(album)
        ran = run("rank", "album", "-p", "red", "--json")
        assert [event["type"] for event in ran.events].count("fault") == 3
        assert (ran.data["count"], ran.data["unreadable"]) == (5, 3)
        assert ran.events[-1]["error"]["message"] == "3 of 8 pictures could not be read."

    @pytest.mark.parametrize("command", [["score", "-p", "x"], ["rank", "-p", "x"], ["classify", "--labels", "x,y"]])
    def test_no_clip_is_loaded_if_no_file_can_be_read(self, run: Run, command: list[str], tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for name, message in (
            ("none.png", "Picture 'none.png' cannot be opened: No such file or directory."),
            ("empty", "No PNG, JPEG or WebP file found."),
        ):
            ran = run(*command, name, "-m", "org/never-loaded")
            assert (ran.code, ran.out, ran.err) == (1, "", f"clipgen: {message}\n")

    def test_an_extreme_aspect_ratio_needs_little_memory(self, run: Run, tmp_path: Path) -> None:
        Image.new("RGB", (60_000, 1), ROSE).save("line.png")
        assert run("score", "line.png", "-p", "red").code == 0


class TestRank:
    def test_best_first(self, run: Run, album: Path) -> None:
        texts = ["a red sky", "a green meadow", "grass", "an apple"]
        for text in texts:
            by_score = [event for event in run("score", "album", "-p", text, "--json").events if "clip" in event]
            best = max(by_score, key=lambda event: (event["clip"]["percentile"], event["clip"]["similarity"]))
            lines = run("rank", "album", "-p", text).lines
            assert (len(lines), lines[0].split("\t")[1]) == (2, best["path"])

    def test_top(self, run: Run, album: Path) -> None:
        assert len(run("rank", "album", "album", "-p", "red", "--top", "3").lines) == 3

    def test_a_signal_keeps_the_results_so_far(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "many").mkdir()
        for k in range(2000):
            Image.new("RGB", (4, 4), (k % 256, 0, 0)).save(tmp_path / "many" / f"{k:04}.png", compress_level=0)
        with signal_after(4, signal.SIGTERM):
            ran = run("rank", "many", "-p", "red")
        stopped = ran.err.splitlines()[-1]
        assert ran.code == 143
        assert stopped == f"clipgen: Stopped after {len(ran.lines):,} of 2,000 pictures."


class TestClassify:
    def test_most_probable_first(self, run: Run, album: Path) -> None:
        ran = run("classify", "album", "--labels", "a fox, a car,an owl", "--top", "2")
        cells = [line.split("\t") for line in ran.lines]
        assert [row[2] for row in cells] == ["album/a.png"] * 2 + ["album/b.png"] * 2
        assert {row[1] for row in cells} <= {"a fox", "a car", "an owl"}
        first, second = (float(row[0].removesuffix("%")) for row in cells[:2])
        assert first >= second

    def test_probabilities_add_up_to_one(self, run: Run, album: Path) -> None:
        ran = run("classify", "album/a.png", "--labels", "fox,car", "--template", "a {}", "--json")
        [picture] = ran.data["pictures"]
        assert sum(guess["probability"] for guess in picture["labels"]) == pytest.approx(1)

    def test_invalid_options(self, run: Run, album: Path) -> None:
        for words, message in (
            (["--labels", "fox"], "labels must be two or more, got 'fox'"),
            (["--labels", "fox,car", "--template", "a"], "template must contain {} once, got 'a'"),
            (["--labels", "fox,car", "--top", "0"], "top must be 1 or more, got '0'"),
            (["--labels", "fox,car", "-m", "nobody"], "Unknown model 'nobody'"),
        ):
            ran = run("classify", "album", *words)
            assert (ran.code, ran.out, message in ran.err) == (2, "", True), ran.err
        assert run("score", "album", "-p", " ").err == "clipgen: prompt must not be empty\n"


def test_a_terminal_gets_a_table(run: Run, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    lines = run("rank", "album", "-p", "red").lines
    assert lines[0].split() == ["match", "picture"]
    assert len(lines) == 3


def test_the_envelope_has_a_maximum_size(run: Run, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_walk, "ENVELOPE_BYTES", 300)
    ran = run("score", *["album"] * 5, "-p", "red", "--json")
    assert [event["type"] for event in ran.events] == ["picture"] * 10 + ["envelope"]
    assert (ran.data["count"], len(ran.data["pictures"])) == (10, 1)
