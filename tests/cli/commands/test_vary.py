"""`clipgen vary`: streams, exit codes, images, and how `again` finds the original image."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from PIL import Image

from clipgen import history, read_settings

from ..conftest import Run


@pytest.fixture(scope="module")
def varying(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save_varying(tmp_path_factory.mktemp("models") / "tiny-varying"))


@pytest.fixture
def picture(working_folder: Path) -> Path:
    Path("given").mkdir()
    path = Path("given") / "fox.png"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path


def pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def test_variations_are_saved_and_their_paths_printed(run: Run, varying: str, picture: Path) -> None:
    ran = run("vary", str(picture), "-n", "4", "-s", "7", "-m", varying)
    assert ran.code == 0, ran.err
    assert [Path(line).name for line in ran.lines] == [f"variation-of-fox-{seed}.png" for seed in (7, 8, 9, 10)]
    assert "as diverse as" in ran.err
    assert read_settings(ran.lines[0]).settings.vary == "./fox.png:1"


def test_events_have_the_likeness(run: Run, varying: str, picture: Path) -> None:
    ran = run("vary", str(picture), "-s", "7", "-m", varying, "--json")
    kinds = [event["type"] for event in ran.events]
    assert (kinds[0], kinds[-1]) == ("start", "envelope")
    image = next(event for event in ran.events if event["type"] == "image")
    assert image["clip"] is None
    assert -1 <= image["likeness"] <= 1


def test_each_image_with_each_prompt_and_seed(run: Run, varying: str, picture: Path) -> None:
    Image.new("RGB", (32, 32), "red").save("red.png")
    words = ("vary", str(picture), "red.png:0.5", "-p", "a fox", "-p", "an owl", "-s", "1,2", "-m", varying)
    ran = run(*words, "--dry-run", "--json")
    runs = [tuple(each[name]["value"] for name in ("vary", "prompt", "seed")) for each in ran.data["runs"]]
    assert runs == [
        (vary, prompt, seed)
        for vary in (f"{picture}:1", "red.png:0.5")
        for prompt in ("a fox", "an owl")
        for seed in (1, 2)
    ]


def test_keep_saves_the_most_similar(run: Run, varying: str, picture: Path) -> None:
    ran = run("vary", str(picture), "-n", "4", "-s", "7", "--keep", "1", "-m", varying, "--json")
    images = [event for event in ran.events if event["type"] == "image"]
    (kept,) = (image for image in images if image["path"])
    assert kept["likeness"] == max(image["likeness"] for image in images)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("nothing.png",), 1, "Picture 'nothing.png' cannot be opened: No such file or directory."),
        (("text.png",), 1, "Picture 'text.png' cannot be opened: not a readable PNG, JPEG or WebP."),
        (("given/fox.png:7",), 2, "vary must be 0 to 1, got '7.0'"),
        (("given/fox.png",), 2, "model 'storybook-less' cannot make variations"),
        ((), 2, "Missing argument"),
    ],
)
def test_errors_are_one_line(
    run: Run, tiny_v: Path, picture: Path, words: tuple[str, ...], code: int, line: str
) -> None:
    Path("text.png").write_text("no picture")
    ran = run("vary", *words, "-m", str(tiny_v))
    assert (ran.code, ran.out) == (code, "")
    assert line.replace("storybook-less", str(tiny_v)) in ran.err
    assert len(ran.err.splitlines()) == 1


def test_again_finds_the_image_by_its_hash(run: Run, varying: str, picture: Path) -> None:
    (made,) = run("vary", str(picture), "-s", "7", "-m", varying, "-o", "one.png").lines
    ran = run("again", made)
    assert ran.code == 0, ran.err
    assert pixels(ran.lines[0]) == pixels(made)
    assert run("again").code == 0  # the history has the absolute path
    history.forget_all()
    missing = run("again", made, "-m", varying)
    assert missing.code == 1
    assert "'one.png' varies 'fox.png', which is missing. Name it: --vary IMAGE" in missing.err
    Image.new("RGB", (32, 32), "red").save("fox.png")  # another image with this name
    assert run("again", made, "-m", varying).code == 1
    picture.rename("fox.png")
    moved = run("again", made, "-m", varying)
    assert pixels(moved.lines[0]) == pixels(made)
    Path("fox.png").rename("renamed.png")
    named = run("again", made, "-m", varying, "--vary", "renamed.png")
    assert pixels(named.lines[0]) == pixels(made)


def test_generate_with_vary(run: Run, varying: str, picture: Path) -> None:
    ran = run("a fox", "--vary", f"{picture}:0.5", "-s", "7", "-m", varying)
    assert ran.code == 0, ran.err
    assert Path(ran.lines[0]).name == "a-fox-7.png"
