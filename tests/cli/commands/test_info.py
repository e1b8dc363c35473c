"""`clipgen info`: the settings in files of clipgen and other apps."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipgen.image_file import encode_image, make_record
from clipgen.report.command_line import command_line
from clipgen.settings.settings import Settings

from ..conftest import Run

SETTINGS = Settings("a fox in snow", seed=42, steps=30, width=128, height=64, scheduler="euler", guidance_scale=4.0)
RUNTIME = {"clipgen": "0.1.0", "torch": "", "diffusers": "", "device": "cpu", "dtype": "float32", "rng": "cpu"}
CLIP = {"model": "c", "similarity": 0.3, "score": 0.75, "percentile": 97.0, "captions": 1000, "self_graded": False}


@pytest.fixture
def fox() -> str:
    model = {"name": "storybook", "hash": "0" * 64, "family": "stable_diffusion"}
    record = make_record(SETTINGS, seed=42, clip={**CLIP, "curve": []}, model=model, runtime=RUNTIME)
    Path("fox.png").write_bytes(encode_image(Image.new("RGB", (8, 8)), record, format="png"))
    return "fox.png"


@pytest.fixture
def foreign() -> str:
    chunks = PngInfo()
    chunks.add_text("parameters", "an owl\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 64x64, Hires: yes")
    Image.new("RGB", (8, 8)).save("owl.png", pnginfo=chunks)
    return "owl.png"


def test_the_table(run: Run, fox: str) -> None:
    rows = dict(line.split("\t") for line in run("info", fox).lines)
    assert (rows["made by"], rows["prompt"], rows["seed"], rows["steps"]) == ("clipgen", "a fox in snow", "42", "30")
    assert rows["clip percentile"] == "97.0"
    assert "negative_prompt" not in rows


def test_the_command(run: Run, fox: str) -> None:
    assert run("info", "--command", fox).out == command_line(SETTINGS) + "\n"


def test_the_raw_texts(run: Run, foreign: str) -> None:
    ran = run("info", "--raw", foreign)
    assert ran.lines[:2] == ["parameters", "an owl"]
    assert run("info", "--raw", "--json", foreign).data["files"][0]["raw"]["parameters"].startswith("an owl\n")


def test_json_has_the_settings(run: Run, fox: str) -> None:
    [contents] = run("info", "--json", fox).data["files"]
    assert Settings.from_dict(contents["settings"]) == SETTINGS
    assert (contents["source"], contents["command"], contents["record"]["seed"]) == (
        "clipgen",
        command_line(SETTINGS),
        42,
    )


def test_a_file_of_another_app(run: Run, foreign: str) -> None:
    ran = run("info", foreign)
    assert "not used: Hires\tyes" in ran.lines
    assert "warning: Another app's noise differs; expect another picture.\n" in ran.err


def test_several_files_and_one_without_settings(run: Run, fox: str, foreign: str) -> None:
    Path("text.png").write_text("no picture")
    ran = run("info", "--command", fox, "text.png", foreign)
    assert ran.code == 1
    assert len(ran.lines) == 2
    assert ran.err.splitlines()[0] == "clipgen: 'text.png' is not a PNG, JPEG or WebP file."
    assert ran.err.splitlines()[-1] == "clipgen: 1 of 3 files have no settings."
    envelope = run("info", "--json", fox, "text.png", foreign).events[-1]
    assert (envelope["ok"], envelope["error"]["code"], len(envelope["data"]["files"])) == (False, "image-file-error", 2)


@pytest.mark.parametrize("words, message", [([], "Missing argument"), (["no.png"], "Cannot read 'no.png'")])
def test_invalid_files(run: Run, words: list[str], message: str) -> None:
    ran = run("info", *words)
    assert ran.code == (1 if words else 2)
    assert message in ran.err
    assert ran.err.count("\n") == 1


def test_switches_and_lists_in_the_command(run: Run) -> None:
    settings = SETTINGS.replace(guidance="clip", through_unet=True, guide=["deep snow:0.5", "a dog:-1"])
    line = command_line(settings)
    assert "--through-unet --guide 'deep snow:0.5' --guide 'a dog:-1'" in line
    runs = run(*shlex.split(line)[1:], "--dry-run", "--json").data["runs"][0]
    assert {name: runs[name]["value"] for name in ("guidance", "through_unet", "guide")} == {
        "guidance": "clip",
        "through_unet": True,
        "guide": ["deep snow:0.5", "a dog:-1"],
    }
