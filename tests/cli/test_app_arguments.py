"""Argument lists: the command and the settings that each one means, and the words that are refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from clipgen.cli.app import command
from clipgen.cli.mistaken_words import OTHER_COMMANDS, refuse_mistaken_words
from clipgen.world.concepts import PLACES, concepts

from .conftest import Run

ROOT = command()
FOX = {"prompt": "a fox in snow"}

# arguments of generate -> settings
DRAWN: list[tuple[list[str], dict[str, Any]]] = [
    (["a fox in snow"], FOX),
    (["a", "fox", "in", "snow"], FOX),
    (["fox"], {"prompt": "fox"}),
    (["generate", "a fox in snow"], FOX),
    (["generate", "fox"], {"prompt": "fox"}),
    (["-p", "a fox in snow"], FOX),
    (["--prompt", "a fox in snow"], FOX),
    (["--prompt=a fox in snow"], FOX),
    (["-pa fox in snow"], FOX),
    (["--", "ui"], {"prompt": "ui"}),
    (["--", "doctor"], {"prompt": "doctor"}),
    (["--", "--steps"], {"prompt": "--steps"}),
    (["-p", "doctor"], {"prompt": "doctor"}),
    (["-p", "-"], {"prompt": "-"}),
    (["a", "-", "b"], {"prompt": "a - b"}),
    (["-p", "--steps"], {"prompt": "--steps"}),
    (["generate", "doctor"], {"prompt": "doctor"}),
    (["generate", "train", "in", "the", "snow"], {"prompt": "train in the snow"}),
    (["--", "docto"], {"prompt": "docto"}),
    (["-p", "docto"], {"prompt": "docto"}),
    (["generate", "help"], {"prompt": "help"}),
    (["--", "help"], {"prompt": "help"}),
    (["brain"], {"prompt": "brain"}),
    (["rain"], {"prompt": "rain"}),
    (["server", "room", "at", "night"], {"prompt": "server room at night"}),
    (["generate", "ui"], {"prompt": "ui"}),
    (["ein Fuchs im Schnee é 日本"], {"prompt": "ein Fuchs im Schnee é 日本"}),
    (["a\nfox"], {"prompt": "a\nfox"}),
    (["--steps", "20", "a fox in snow"], {**FOX, "steps": 20}),
    (["a fox in snow", "--steps", "20"], {**FOX, "steps": 20}),
    (["a", "fox", "--steps=20", "in", "snow"], {**FOX, "steps": 20}),
    (["--steps", "20.0", "a fox in snow"], {**FOX, "steps": 20}),
    (["a fox in snow", "--steps", "none"], {**FOX, "steps": 25}),
    (["a fox in snow", "-s", "7"], {**FOX, "seed": 7}),
    (["a fox in snow", "--seed", "random"], {**FOX, "seed": None}),
    (["a fox in snow", "-s9223372036854775807"], {**FOX, "seed": 9223372036854775807}),
    (["a fox in snow", "-n", "4"], {**FOX, "images": 4}),
    (["a fox in snow", "--images", "4", "--keep", "2"], {**FOX, "images": 4}),
    (["a fox in snow", "-W", "256", "-H", "64"], {**FOX, "width": 256, "height": 64}),
    (["a fox in snow", "--size", "256x64"], {**FOX, "width": 256, "height": 64}),
    (["a fox in snow", "--size", "256×64"], {**FOX, "width": 256, "height": 64}),
    (["a fox in snow", "--width", "256"], {**FOX, "width": 256, "height": 128}),
    (["a fox in snow", "--no", "blurry"], {**FOX, "negative_prompt": "blurry"}),
    (["a fox in snow", "--negative-prompt", ""], {**FOX, "negative_prompt": ""}),
    (["a fox in snow", "-g", "5"], {**FOX, "guidance_scale": 5.0}),
    (["a fox in snow", "--cfg", "5"], {**FOX, "guidance_scale": 5.0}),
    (["a fox in snow", "--guidance-scale", "0"], {**FOX, "guidance_scale": 0.0}),
    (["a fox in snow", "--scheduler", "euler"], {**FOX, "scheduler": "euler"}),
    (["a fox in snow", "--sampler", "Euler a"], {**FOX, "scheduler": "euler_ancestral"}),
    (["a fox in snow", "--sampler", "DPM++ 2M Karras"], {**FOX, "scheduler": "dpm++_2m_karras"}),
    (["a fox in snow", "--eta", "1"], {**FOX, "eta": 1.0}),
    (["a fox in snow", "--cfg-start", ".1", "--cfg-stop", ".9"], {**FOX, "cfg_start": 0.1, "cfg_stop": 0.9}),
    (["a fox in snow", "--guidance-rescale", "0.7"], {**FOX, "guidance_rescale": 0.7}),
    (["a fox in snow", "--prompt-syntax", "plain"], {**FOX, "prompt_syntax": "plain"}),
    (["a fox in snow", "--long-prompt", "error"], {**FOX, "long_prompt": "error"}),
    (["a fox in snow", "--prompt-template", "a {fox|owl}"], {**FOX, "prompt_template": "a {fox|owl}"}),
    (["a fox in snow", "--preset", "none"], {**FOX, "preset": None}),
    (["a fox in snow", "--preset", "fast"], {**FOX, "preset": "fast", "steps": 8, "scheduler": "dpm++_2m"}),
    (["a fox in snow", "--preset", "fast", "--steps", "9"], {**FOX, "preset": "fast", "steps": 9}),
    (["a fox in snow", "--preset", "neon"], {"prompt": "a fox in snow, neon", "preset": "neon"}),
    (["a fox in snow", "--model", "./light"], {**FOX, "model": "./light"}),
    (["-v", "a fox in snow"], FOX),
    (["--no-show", "a fox in snow", "--offline", "--exact", "--no-history", "--no-metadata"], FOX),
    (["a fox in snow", "-o", "fox.jpg", "--quality", "80"], FOX),
    (["-n", "2", "-s", "3", "-p", "a fox in snow", "-g", "3"], {**FOX, "images": 2, "seed": 3, "guidance_scale": 3.0}),
]

# arguments -> the prompts, or seeds, of several runs
SEVERAL: list[tuple[list[str], str, list[Any]]] = [
    (["a fox", "an owl"], "prompt", ["a fox", "an owl"]),
    (["a fox", "owl"], "prompt", ["a fox", "owl"]),
    (["fox", "owl", "-p", "a cat"], "prompt", ["fox owl", "a cat"]),
    (["-p", "fox", "-p", "owl"], "prompt", ["fox", "owl"]),
    (["a fox", "-s", "1,2,5-8"], "seed", [1, 2, 5, 6, 7, 8]),
    (["a fox", "-s", "4,random"], "seed", [4, None]),
    (["a fox", "an owl", "-s", "1,2"], "seed", [1, 2, 1, 2]),
]

# arguments -> the command
COMMANDS: list[tuple[list[str], str]] = [
    ([], "--help"),
    (["--help"], "--help"),
    (["-h"], "-h"),
    (["--version"], "--version"),
    (["again"], "again"),
    (["batch", "-"], "batch"),
    (["info", "fox.png"], "info"),
    (["history"], "history"),
    (["ui"], "ui"),
    (["doctor"], "doctor"),
    (["help"], "help"),
    (["help", "generate"], "help"),
    (["version"], "version"),
    (["config", "get", "steps"], "config"),
    (["Doctor"], "generate"),
    ([""], "generate"),
    (["-"], "generate"),
    (["--json"], "generate"),
]


def values(run: Run, words: list[str]) -> list[dict[str, Any]]:
    """Returns the settings of every run of a command line, from --dry-run."""
    flags = ["--dry-run", "--json"]
    ran = run(*(["generate", *flags, *words[1:]] if words[:1] == ["generate"] else [*flags, *words]))
    assert ran.code == 0, ran.err
    assert ran.events[-1]["ok"]
    return [{name: cell["value"] for name, cell in one.items()} for one in ran.data["runs"]]


@pytest.fixture(autouse=True)
def model(light_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGEN_MODEL", light_model)


@pytest.mark.parametrize("words, expected", DRAWN)
def test_one_run(run: Run, words: list[str], expected: dict[str, Any]) -> None:
    [settings] = values(run, words)
    assert {name: settings[name] for name in expected} == expected
    assert ROOT.with_command(words)[0] == "generate"


@pytest.mark.parametrize("words, field, expected", SEVERAL)
def test_several_runs(run: Run, words: list[str], field: str, expected: list[Any]) -> None:
    assert [one[field] for one in values(run, words)] == expected


@pytest.mark.parametrize("words, expected", COMMANDS)
def test_the_command(words: list[str], expected: str) -> None:
    assert ROOT.with_command(words)[0] == expected


def test_the_table_is_long_enough() -> None:
    assert len(DRAWN) + len(SEVERAL) + len(COMMANDS) >= 60


def test_stdin_is_a_prompt_only_when_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("ein Bär\nim Wald\n".encode())))
    assert values(run, ["a fox"])[0]["prompt"] == "a fox"
    assert values(run, ["a fox", "-"])[1]["prompt"] == "ein Bär\nim Wald"


@pytest.mark.parametrize(
    "words, message",
    [
        (["a fox", "--seed", "-1"], "seed must be random or 0 to 9223372036854775807, got '-1'"),
        (["a fox", "--seed", "1,,2"], "seed must be random or 0 to 9223372036854775807, got ''"),
        (["a fox", "--seed", "8-5"], "a seed range must ascend, got '8-5'"),
        (["a fox", "--seed", "0-99999"], "seed must be at most 1,000 seeds, got '0-99999'"),
        (["a fox", "--steps", "0"], "steps must be 1 to 150, got '0'"),
        (["a fox", "--steps", "nan"], "steps must be 1 to 150, got 'nan'"),
        (["a fox", "--size", "100"], "size must have the form 512x768, got '100'"),
        (["a fox", "--size", "100x100"], "width must be 64 to 2048 and a multiple of 8, got '100'"),
        (["a fox", "--size", "128x128", "-W", "64"], "--size and --width exclude each other"),
        (["a fox", "--cfg", "nan"], "guidance_scale must be 0 to 50, got 'nan'"),
        (["a fox", "--sampler", "eular"], "Unknown scheduler 'eular'. Did you mean euler?"),
        (["a fox", "--preset", "fsat"], "Unknown preset 'fsat'. Did you mean fast? Presets: "),
        (
            ["a fox", "-m", "nothing/here"],
            "Model 'nothing/here' is not on this machine, and HF_HUB_OFFLINE forbids the download.",
        ),
        (["a fox", "-m", "./nothing"], "There is no folder './nothing'."),
        (["a fox", "-m", "strybook"], "Unknown model 'strybook'. Did you mean storybook?"),
        (["x" * 3000], "prompt must be at most 2,000 characters, got 3,000"),
        (["a f\udcffx"], "prompt must be valid UTF-8 without control characters (character 4), got '\\udcff'"),
        ([""], "prompt must not be empty"),
        (["--steps", "3"], 'The prompt is missing. Example: clipgen "a fox in snow"'),
        (["a fox", "--bogus"], "No such option: --bogus"),
        (["a fox", "--format", "gif"], "format must be png, jpeg, webp, got 'gif'"),
        (["a fox", "--show", "ascii"], "show must be auto, kitty, iterm2, sixel, blocks, off, got 'ascii'"),
        (["a fox", "--show", "off", "--no-show"], "--show and --no-show exclude each other"),
        (["a fox", "--keep", "0"], "keep must be 1 or more, got '0'"),
        (["a fox", "--keep", "two"], "keep must be 1 or more, got 'two'"),
        (["a fox", "--quality", "101"], "quality must be 1 to 100, got '101'"),
        (["a fox", "--min-score", "nan"], "min_score must be 0 to 100, got 'nan'"),
        (["history", "show", "x"], "id must be 1 or more, got 'x'"),
        (["history", "list", "--limit", "0"], "limit must be 1 or more, got '0'"),
        (["again", "--bogus"], "Options: clipgen again --help"),
        (["a fox", "-q"], "--json and --quiet exclude each other"),
        (["doctor", "in", "snow"], "'doctor' takes no 'in snow'. To draw these words: clipgen generate doctor in snow"),
        (["models", "on", "a", "runway"], "To draw these words: clipgen generate models on a runway"),
        (["history", "of", "it's"], "To draw these words: clipgen generate history of 'it'\"'\"'s'"),
    ],
)
def test_a_bad_line_is_one_error_line_and_an_envelope(run: Run, words: list[str], message: str) -> None:
    front = words[:1] if words[0] in ROOT.commands else []
    front += words[1:2] if words[:2] in (["history", "show"], ["history", "list"]) else []
    ran = run(*front, "--json", *words[len(front) :])
    assert ran.err.startswith("clipgen: ")
    assert ran.err.count("\n") == 1
    assert message in ran.err
    assert ran.code == (3 if message.startswith(("Model", "There is no folder")) else 2)
    last = ran.events[-1]
    assert (last["ok"], last["exit"]) == (False, ran.code)
    assert message in last["error"]["message"]


def test_a_note_about_unquoted_words(run: Run) -> None:
    assert 'note: Read as one prompt: "a fox"' in run("--dry-run", "a", "fox").err
    assert run("--dry-run", "a docto").err == ""
    assert run("--dry-run", "-q", "a", "fox").err == ""


# arguments without `generate` -> the beginning of the error, and the words in its hint
REFUSED = [
    (
        ["list"],
        "'list' is not a command of clipgen. Did you mean: clipgen history?",
        "this word: clipgen generate list",
    ),
    (["Serve"], "'Serve' is not a command of clipgen. Did you mean: clipgen ui?", "this word: clipgen generate Serve"),
    (["docto"], "'docto' is not a command of clipgen. Did you mean: clipgen doctor?", "clipgen generate docto"),
    (["Doctor"], "'Doctor' is not a command of clipgen. Did you mean: clipgen doctor?", "clipgen generate Doctor"),
    (["upscale"], "'upscale' is not a command of clipgen. To draw this word:", "clipgen generate upscale"),
    (["upscale", "x.webp"], "'upscale' is not a command of clipgen.", "these words: clipgen generate upscale x.webp"),
    (
        ["img2img", "x.webp", "a fox"],
        "'img2img' is not a command of clipgen. Did you mean: clipgen vary IMAGE?",
        "clipgen generate img2img x.webp 'a fox'",
    ),
    (["txt2img", "a fox"], "'txt2img' is not a command of clipgen.", "clipgen generate txt2img 'a fox'"),
    (["generat", "a fox"], "'generat' is not a command of clipgen. Did you mean: clipgen generate?", "generat 'a fox'"),
    (["x.webp"], "'x.webp' is a file. To draw variations of it: clipgen vary x.webp.", "clipgen generate x.webp"),
    (["upscale", "none.png"], "'upscale' is not a command of clipgen.", "clipgen generate upscale none.png"),
    (["none.png"], "There is no file 'none.png'.", "this word: clipgen generate none.png"),
    (["fox"], "'fox' is a file.", "clipgen generate fox"),
    (["a", "fox", "like", "x.webp"], "'x.webp' is a file.", "clipgen generate a fox like x.webp"),
]


@pytest.mark.parametrize(
    "words, message, hint", REFUSED, ids=lambda value: value[:30] if isinstance(value, str) else " ".join(value)
)
def test_words_that_are_hardly_a_prompt_are_refused(run: Run, words: list[str], message: str, hint: str) -> None:
    for name in ("x.webp", "fox"):
        Path(name).touch()
    ran = run("--dry-run", *words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"clipgen: {message}")
    assert ran.err.endswith(f"{hint}\n")
    assert ran.err.count("\n") == 1
    assert run("generate", "--dry-run", *words).code == 0


def test_a_word_of_a_prompt_may_be_the_name_of_a_file(run: Run) -> None:
    Path("fox").touch()
    assert run("--dry-run", "a", "fox").code == 0
    assert run("--dry-run", "fox in snow").code == 0


def test_no_word_of_the_models_vocabulary_is_refused() -> None:
    assert not {*concepts(), *PLACES} & OTHER_COMMANDS.keys()
    for word in (*concepts(), *PLACES):
        refuse_mistaken_words([word], ROOT.commands.keys() - concepts().keys())


def test_hints_name_commands_that_exist() -> None:
    commands = {hint.split()[1] for hint in OTHER_COMMANDS.values() if hint and '"' not in hint}
    assert commands <= ROOT.commands.keys()
    assert not OTHER_COMMANDS.keys() & ROOT.commands.keys()
