"""`clipgen config`: shows and changes keys of config.toml, and keeps its comments."""

from __future__ import annotations

import tomllib

import pytest

from clipgen.cli.config_file import KEYS, parse, to_text, write
from clipgen.errors import OutputError, SettingsError
from clipgen.home import config_path

from ..conftest import Run

OLD = """# mine
steps = 20  # enough

[output]
format = "png"

[history]
on = true
"""


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("steps", 30, OLD.replace("steps = 20", "steps = 30")),
        ("steps", None, OLD.replace("steps = 20  # enough\n", "")),
        ("seed", 7, OLD.replace("# enough\n", "# enough\nseed = 7\n")),
        ("output.quality", 80, OLD.replace('"png"\n', '"png"\nquality = 80\n')),
        ("history.on", False, OLD.replace("true", "false")),
        ("guide", ["snow:1", "a dog"], OLD.replace("# enough\n", '# enough\nguide = ["snow:1", "a dog"]\n')),
        ("output.path", None, OLD),
    ],
)
def test_one_key_changes_and_comments_stay(key: str, value: object, expected: str) -> None:
    config_path().write_text(OLD)
    write(key, value)
    assert config_path().read_text() == expected


def test_a_new_file() -> None:
    write("output.path", "x")
    write("steps", 3)
    assert tomllib.loads(config_path().read_text()) == {"output": {"path": "x"}, "steps": 3}


@pytest.mark.parametrize("text", ['a "b" \\ c', "zwei\nZeilen\tund é 日本", "x = 1 # y", "'"])
def test_any_text_can_be_written_and_read(text: str) -> None:
    write("negative_prompt", text)
    assert tomllib.loads(config_path().read_text("utf-8")) == {"negative_prompt": text}


def test_every_key_can_be_set_and_removed(run: Run) -> None:
    texts = {"model": "./m", "preset": "fast", "scheduler": "euler", "prompt_syntax": "plain", "long_prompt": "error"}
    texts |= {"output.format": "jpeg", "output.show": "off", "output.path": "pics/", "history.on": "false"}
    texts |= {"width": "64", "height": "64", "cfg_stop": "0.5", "output.quality": "3"}
    texts |= {
        "guidance": "clip+pick",
        "guidance_start": "0.2",
        "guidance_stop": "0.9",
        "candidates": "4",
        "particles": "2",
    }
    texts |= {"through_unet": "true", "guide_decoder": "tiny", "guard": "off"}
    texts |= {"guide": "snow:1\na dog:-0.5", "like": "a.png:2", "clip_models": "./c\norg/name"}
    for key in KEYS:
        text = texts.get(key, "x" if "prompt" in key else "0" if key in ("seed", "eta", "cfg_start") else "1")
        assert run("config", "set", key, text).code == 0
        assert run("config", "get", key).out == f"{to_text(parse(key, text))}\n"
    assert len(run("config", "show").lines) == len(KEYS)
    for key in KEYS:
        assert run("config", "set", key, "none").code == 0
        assert run("config", "get", key).out == ""
    assert run("config").out == ""
    assert run("config").err == "Nothing is set. Example: clipgen config set steps 40\n"


def test_any_layout_can_be_changed(run: Run) -> None:
    config_path().write_text('output = {quality = 80} # small\nprompt = """a\nb"""\n')
    assert run("config", "set", "output.quality", "90").code == 0
    assert config_path().read_text() == 'output = {quality = 90} # small\nprompt = """a\nb"""\n'


def test_an_invalid_file_is_an_error_and_stays_unchanged() -> None:
    config_path().write_text("steps = ")
    with pytest.raises(SettingsError, match="not valid TOML"):
        write("steps", 3)
    assert config_path().read_text() == "steps = "


@pytest.mark.parametrize(
    "words, message",
    [
        (("set", "stps", "3"), "Unknown key 'stps'. Did you mean steps?"),
        (("set", "output.formt", "png"), "Unknown key 'output.formt'. Did you mean output.format?"),
        (("set", "steps", "0"), "steps must be 1 to 150, got '0'"),
        (("set", "output.quality", "many"), "output.quality must be a whole number, got 'many'"),
        (("set", "output.quality", "101"), "output.quality must be 1 to 100, got '101'"),
        (("set", "history.on", "maybe"), "history.on must be true or false, got 'maybe'"),
        (("get", "server.host"), "Unknown key 'server.host'."),
    ],
)
def test_invalid_keys_and_values_are_refused(run: Run, words: tuple[str, ...], message: str) -> None:
    ran = run("config", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert not config_path().exists()


def test_path(run: Run) -> None:
    assert run("config", "path").out == f"{config_path()}\n"
    assert run("config", "path", "--json").data == {"path": str(config_path())}


def test_show_names_the_source(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGEN_SEED", "4")
    run("config", "set", "steps", "30")
    run("config", "set", "output.format", "webp")
    assert run("config").lines == [
        "seed\t4\tCLIPGEN_SEED",
        "steps\t30\tconfig.toml",
        "output.format\twebp\tconfig.toml",
    ]
    assert run("config", "show", "--json").data["steps"] == {"value": 30, "from": "config.toml"}


def test_a_folder_that_cannot_be_written_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGEN_HOME", "/proc/nowhere")
    with pytest.raises(OutputError, match="cannot be written"):
        write("steps", 3)
    assert run("config", "set", "steps", "3").code == 1
