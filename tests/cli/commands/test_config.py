"""config.toml: reading, and changing one line without touching the others."""

from __future__ import annotations

import tomllib

import pytest

from clipgen.cli.config_file import KEYS, edited, parse, plain, write
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
    "table, name, line, expected",
    [
        ("", "steps", "steps = 30", OLD.replace("steps = 20  # enough", "steps = 30")),
        ("", "steps", None, OLD.replace("steps = 20  # enough\n", "")),
        ("", "seed", "seed = 7", OLD.replace("# enough\n", "# enough\nseed = 7\n")),
        ("output", "quality", "quality = 80", OLD.replace('"png"\n', '"png"\nquality = 80\n')),
        ("history", "on", "on = false", OLD.replace("true", "false")),
        ("history", "off", "off = 1", OLD + "off = 1\n"),
        ("ui", "port", "port = 1", OLD + "\n[ui]\nport = 1\n"),
        ("ui", "port", None, OLD),
    ],
)
def test_one_line_changes(table: str, name: str, line: str | None, expected: str) -> None:
    assert edited(OLD, table, name, line) == expected
    tomllib.loads(expected)


def test_into_nothing() -> None:
    assert edited("", "", "steps", "steps = 3") == "steps = 3\n"
    assert edited("", "output", "path", 'path = "x"') == '[output]\npath = "x"\n'
    assert edited("", "output", "path", None) == ""


@pytest.mark.parametrize("text", ['a "b" \\ c', "zwei\nZeilen\tund é 日本", "x = 1 # y", "'"])
def test_any_text_survives(text: str) -> None:
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
        assert run("config", "get", key).out == f"{plain(parse(key, text))}\n"
    assert len(run("config", "show").lines) == len(KEYS)
    for key in KEYS:
        assert run("config", "set", key, "none").code == 0
        assert run("config", "get", key).out == ""
    assert run("config").out == "\n"


def test_comments_and_unknown_layouts(run: Run) -> None:
    config_path().write_text(OLD)
    assert run("config", "set", "output.quality", "80").code == 0
    assert config_path().read_text() == OLD.replace('"png"\n', '"png"\nquality = 80\n')
    config_path().write_text('output = {quality = 80}\nprompt = """a\nb"""\n')
    with pytest.raises(SettingsError, match="Change it by hand"):
        write("output.quality", 90)
    assert config_path().read_text() == 'output = {quality = 80}\nprompt = """a\nb"""\n'


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
def test_refusals(run: Run, words: tuple[str, ...], message: str) -> None:
    ran = run("config", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert not config_path().exists()


def test_where_it_is(run: Run) -> None:
    assert run("config", "path").out == f"{config_path()}\n"
    assert run("config", "path", "--json").data == {"path": str(config_path())}


def test_show_names_the_origin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGEN_SEED", "4")
    run("config", "set", "steps", "30")
    run("config", "set", "output.format", "webp")
    assert run("config").lines == [
        "seed\t4\tCLIPGEN_SEED",
        "steps\t30\tconfig.toml",
        "output.format\twebp\tconfig.toml",
    ]
    assert run("config", "show", "--json").data["steps"] == {"value": 30, "from": "config.toml"}


def test_no_place_to_write(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGEN_HOME", "/proc/nowhere")
    with pytest.raises(OutputError, match="cannot be written"):
        write("steps", 3)
    assert run("config", "set", "steps", "3").code == 1
