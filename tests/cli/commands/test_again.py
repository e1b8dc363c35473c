"""`clipgen again`: by position, id and file, with changed settings, and the printed command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import tiny_lora
from diffusers import StableDiffusionPipeline
from PIL import Image

from clipgen import history
from clipgen.hashing import sha256_of
from clipgen.image_file import read_settings
from clipgen.report.command_line import command_line
from clipgen.settings.settings import Settings

from ..conftest import Run
from ..test_app_arguments import values


def pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


@pytest.fixture
def pictures(run: Run, tiny_epsilon: Path) -> list[str]:
    """Three images, the last one of an owl."""
    common = ["--steps", "2", "-m", str(tiny_epsilon)]
    return [*run("a fox", "-s", "7,8", *common).lines, *run("an owl", "-s", "9", *common).lines]


def test_the_last_image(run: Run, pictures: list[str]) -> None:
    ran = run("again")
    assert pixels(ran.lines[0]) == pixels(pictures[2])
    assert history.last().parent == 3  # type: ignore[union-attr]


def test_back_and_id_and_file(run: Run, pictures: list[str]) -> None:
    for words in (["again", "--back", "2"], ["again", "1"], ["again", pictures[0]]):
        [path] = run(*words).lines
        assert pixels(path) == pixels(pictures[0]), words
        entry = history.last()
        assert entry is not None
        assert entry.parent == 1
        history.forget([entry.id])


def test_changes(run: Run, pictures: list[str], tiny_epsilon: Path) -> None:
    ran = run("again", "--change", "steps=3", "--change", "negative-prompt=a = b", "--seed", "1")
    settings = read_settings(ran.lines[0]).settings
    assert (settings.steps, settings.negative_prompt, settings.seed, settings.prompt) == (3, "a = b", 1, "an owl")
    line = ran.err.splitlines()[0]
    assert line == command_line(settings.replace(model=str(tiny_epsilon)))


def test_an_option_overrides_a_change(run: Run, pictures: list[str]) -> None:
    ran = run("again", "--change", "steps=3", "--steps", "4", "--dry-run", "--json")
    assert ran.data["runs"][0]["steps"] == {"value": 4, "from": "--steps"}
    ran = run("again", "--change", "steps=3", "--dry-run", "--json")
    assert ran.data["runs"][0]["steps"] == {"value": 3, "from": "--change"}
    assert ran.data["runs"][0]["seed"] == {"value": 9, "from": "picture 3"}


def test_the_printed_command_draws_the_same(run: Run, pictures: list[str]) -> None:
    line = run("again").err.splitlines()[0]
    [path] = run(*shlex.split(line)[1:]).lines
    assert pixels(path) == pixels(pictures[2])


def test_a_preset_applies_only_if_it_is_given(run: Run, pictures: list[str]) -> None:
    [styled] = run("again", "--preset", "neon").lines
    assert read_settings(styled).settings.prompt == "an owl, neon"
    [again] = run("again").lines
    assert read_settings(again).settings.prompt == "an owl, neon"
    assert pixels(again) == pixels(styled)


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--change", "step=3"], 2, "Unknown setting 'step'. Did you mean steps?"),
        (["--change", "steps"], 2, "--change takes field=value, got 'steps'"),
        (["--change", "steps=0"], 2, "steps must be 1 to 150, got '0'"),
        (["--back", "1", "1"], 2, "A picture and --back exclude each other"),
        (["--back", "-1"], 2, "back must be 0 or more, got '-1'"),
        (["99"], 1, "The history has no picture '99'"),
        (["nothing.png"], 1, "Cannot read 'nothing.png'"),
        ([], 1, "The history has no such picture. Name a file: clipgen again FILE"),
    ],
)
def test_invalid_arguments(run: Run, words: list[str], code: int, message: str) -> None:
    ran = run("again", *words)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err


@pytest.mark.parametrize(
    "settings",
    [
        Settings("a fox in snow"),
        Settings("fox"),
        Settings("doctor"),
        Settings("-"),
        Settings("--steps 3"),
        Settings('it\'s "red" $HOME `x`\nzwei', negative_prompt="-n 3"),
        Settings(
            "a fox", seed=0, images=4, steps=7, width=64, height=72, scheduler="ddim", guidance_scale=0.1, eta=0.25
        ),
        Settings(
            "a fox", prompt_syntax="plain", long_prompt="error", cfg_start=0.1, cfg_stop=0.9, guidance_rescale=1 / 3
        ),
    ],
)
def test_a_command_line_is_complete(
    run: Run, settings: Settings, light_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.replace(model=light_model)
    [replayed] = values(run, shlex.split(command_line(settings))[1:])
    light = {"steps": 25, "width": 128, "height": 128, "scheduler": "ddim", "guidance_scale": 4.0, "eta": 0.0}
    assert replayed == settings.with_defaults(light).to_dict()


def test_the_model_of_an_image_is_never_downloaded(run: Run) -> None:
    """A hub model in a record is used if it is in the cache, and downloaded only on request."""
    record = {"schema": "clipgen/1", "settings": {"prompt": "a fox", "model": "org/name"}, "seed": 1, "clip": None}
    Path("fox.json").write_text(json.dumps(record))
    for words in (["again", "fox.json"], ["generate", "--from", "fox.json"]):
        ran = run(*words)
        assert ran.code == 3
        assert "download it with clipgen models pull org/name, or choose another with --model." in ran.err
    assert run("again", "fox.json", "--model", "./light", "--dry-run").code == 3
    assert "The picture names it" not in run("again", "fox.json", "--model", "org/name").err


def test_options_are_checked_before_files_are_opened(run: Run) -> None:
    for words in (["--steps", "0"], ["--preset", "fsat"], ["--seed", "-1"]):
        assert run("again", "nothing.png", *words).code == 2
        assert run("a fox", "--from", "nothing.png", *words).code == 2


def test_command_lines_leave_out_labels() -> None:
    settings = Settings("a fox, neon", preset="neon", prompt_template="a {fox|owl}, neon")
    assert command_line(settings) == "clipgen 'a fox, neon'"


def test_again_needs_the_same_lora(run: Run, tiny_epsilon: Path) -> None:
    reference = StableDiffusionPipeline.from_pretrained(tiny_epsilon, local_files_only=True)
    file = tiny_lora.save(Path("files/style.safetensors"), reference)
    common = ("--steps", "2", "-m", str(tiny_epsilon), "-s", "7")
    [plain] = run("a fox", *common).lines
    [made] = run("a fox", *common, "--lora", f"{file}:0.5").lines
    assert pixels(made) != pixels(plain)
    assert read_settings(made).settings.lora == ("./style.safetensors:0.5",)
    assert f"SHA-256 of lora:style.safetensors\t{sha256_of(file)}" in run("info", made).lines
    [same] = run("again", made).lines
    assert pixels(same) == pixels(made)

    moved = file.rename("files/moved.safetensors")
    refused = run("again", made)
    assert (refused.code, refused.out) == (1, "")
    assert (
        "uses the lora file 'style.safetensors', which is missing or has changed. Name it: --lora FILE" in refused.err
    )
    [same] = run("again", made, "--lora", f"{moved}:0.5").lines
    assert pixels(same) == pixels(made)
    Path("loras").mkdir()
    moved.rename("loras/pixel.safetensors")
    [tagged] = run("a fox <lora:pixel:0.5>", *common).lines
    assert pixels(tagged) == pixels(made)
    assert Path(tagged).name == "a-fox-7-4.png"

    tiny_lora.save(Path("loras/pixel.safetensors"), reference, seed=5)
    changed = run("again", tagged)
    assert "The LoRA 'pixel' is another file than when the picture was drawn." in changed.err
    assert pixels(changed.lines[0]) != pixels(made)
