from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipgen.errors import PresetError
from clipgen.settings.preset import Preset, list_presets, load_preset, parse_preset, preset_names, read_preset
from clipgen.settings.settings import Settings

STYLES_AND_STEPS = ["black-and-white", "fast", "fine", "neon", "pencil", "pixel-art", "storybook", "watercolour"]
MODELS = ["flux-2-klein", "flux-schnell", "lcm", "sd15", "sdxl-lightning", "sdxl-turbo", "z-image-turbo"]
BUNDLED = sorted(STYLES_AND_STEPS + MODELS)
HEAD = 'schema = 1\ntitle = "Mine"\nabout = "A look of mine."\n'
STYLES = Path(__file__).parents[2] / "clipgen" / "world" / "concepts.py"


def parsed(text: str, name: str = "mine.toml") -> Preset:
    return parse_preset(text.encode(), Path(name))


@pytest.fixture
def user_presets(private_home: Path) -> Path:
    folder = private_home / "presets"
    folder.mkdir()
    return folder


def test_bundled_presets_load_and_give_valid_settings() -> None:
    presets = list_presets()
    assert [preset.name for preset in presets] == preset_names() == BUNDLED
    for preset in presets:
        made = Settings.from_dict(preset.apply({"prompt": "a fox in snow"}))
        assert made.preset == preset.name
        assert made.prompt.startswith("a fox in snow")
        assert preset.source == "bundled"
        assert preset.about.endswith(".")
        assert len(preset.about) <= 100


def test_bundled_styles_use_the_vocabulary_of_storybook() -> None:
    """Reads the styles of the training data from the source, because importing it needs an extra."""
    constants = {
        node.targets[0].id: ast.unparse(node.value)
        for node in ast.parse(STYLES.read_text("utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    styles = {preset.style_prompt.removeprefix("{prompt}, ") for preset in list_presets() if preset.style_prompt}
    assert styles
    assert all(repr(style) in constants["STYLES"] for style in styles)


def test_explicit_settings_override_the_preset() -> None:
    preset = load_preset("fast")
    assert preset.apply({"prompt": "a fox", "steps": 30}) == {
        "prompt": "a fox",
        "steps": 30,
        "scheduler": "dpm++_2m",
        "guidance_every": 4,
        "preset": "fast",
    }
    assert preset.apply({})["steps"] == 8


@pytest.mark.parametrize(
    "values, styled",
    [
        ({"prompt": "a fox"}, {"prompt": "oil painting of a fox, soft", "negative_prompt": "photo"}),
        (
            {"prompt": "a fox", "negative_prompt": "dark"},
            {"prompt": "oil painting of a fox, soft", "negative_prompt": "dark, photo"},
        ),
        ({"prompt": "{a|b} {prompt}"}, {"prompt": "oil painting of {a|b} {prompt}, soft", "negative_prompt": "photo"}),
        ({}, {"negative_prompt": "photo"}),
        ({"prompt": ""}, {"prompt": "", "negative_prompt": "photo"}),
    ],
)
def test_a_style_is_applied_to_both_prompts_once(values: dict[str, Any], styled: dict[str, Any]) -> None:
    preset = parsed(
        HEAD + '[style]\nprompt = "oil painting of {prompt}, soft"\nnegative_prompt = "{negative_prompt}, photo"'
    )
    once = preset.apply(values)
    assert once == {**styled, "preset": "mine"}
    assert preset.apply(once) == once


def test_a_user_preset_overrides_a_bundled_one(user_presets: Path) -> None:
    assert not load_preset("fast").overrides
    (user_presets / "fast.toml").write_text(HEAD + "[settings]\nsteps = 3\n")
    (user_presets / "new.toml").write_text(HEAD)
    (user_presets / "Not A Name.toml").write_text("no preset")
    (user_presets / "notes.txt").write_text("no preset")
    mine = load_preset("fast")
    assert (mine.source, mine.overrides, mine.settings, mine.path) == (
        "user",
        True,
        {"steps": 3},
        user_presets / "fast.toml",
    )
    assert [preset.name for preset in list_presets()] == sorted([*BUNDLED, "new"])
    assert not load_preset("new").overrides


def test_an_unknown_name_is_an_error_that_lists_all_presets(user_presets: Path) -> None:
    (user_presets / "mine.toml").write_text(HEAD)
    for name in ("phto", "", "../fast", "fast.toml", "x" * 10_000, "\n\udc80"):
        with pytest.raises(PresetError) as caught:
            load_preset(name)
        assert str(caught.value).startswith("Unknown preset '")
        assert str(caught.value).endswith(f"Presets: {', '.join(sorted([*BUNDLED, 'mine']))}.")
        assert str(caught.value).isprintable()
        assert (caught.value.exit_code, caught.value.allowed) == (2, sorted([*BUNDLED, "mine"]))


def test_the_error_for_a_misspelt_name_suggests_a_preset() -> None:
    with pytest.raises(PresetError, match=r"^Unknown preset 'watercolor'\. Did you mean watercolour\? Presets: black-"):
        load_preset("watercolor")


def test_values_are_converted_to_their_type() -> None:
    preset = parsed(HEAD + '[settings]\nsteps = 20.0\nguidance_scale = 5\nscheduler = "Euler a"\n')
    assert preset.settings == {"steps": 20, "guidance_scale": 5.0, "scheduler": "euler_ancestral"}
    assert [type(value) for value in preset.settings.values()] == [int, float, str]
    assert parsed("\ufeff" + HEAD.replace("\n", "\r\n")).title == "Mine"


@pytest.mark.parametrize(
    "text, line",
    [
        ("", "schema must be 1, got 'None'"),
        ("schema = 2", "schema must be 1, got '2'"),
        ("schema = true", "schema must be 1, got 'True'"),
        ('schema = 1\nabout = "x"', "title must not be empty"),
        ('schema = 1\ntitle = 5\nabout = "x"', "title must be text, got '5'"),
        ('schema = 1\ntitle = "a"\nabout = "x\\ny"', r"about must be one line without spaces around it, got 'x\ny'"),
        (HEAD + "[setings]", "Unknown key 'setings'. Did you mean settings?"),
        (HEAD + "settings = 5", "[settings] must be a section, got '5'"),
        (HEAD + "[[settings]]\nsteps = 5", "[settings] must be a section, got 'a list'"),
        (HEAD + "[settings]\nsetps = 5", "Unknown [settings] key 'setps'. Did you mean steps?"),
        (HEAD + "[settings]\nsteps = nan", "[settings] steps must be 1 to 150, got 'nan'"),
        (HEAD + "[settings]\nsteps = 1979-05-27", "[settings] steps must be 1 to 150, got 'a date'"),
        (HEAD + "[settings]\nsteps = true", "[settings] steps must be 1 to 150, got 'True'"),
        (HEAD + '[settings]\nscheduler = "eulr"', "[settings] Unknown scheduler 'eulr'. Did you mean euler?"),
        (
            HEAD + "[settings]\ncfg_start = 0.5\ncfg_stop = 0.5",
            "[settings] cfg_start must be below cfg_stop (0.5), got '0.5'",
        ),
        (HEAD + "[styl]", "Unknown key 'styl'. Did you mean style?"),
        (HEAD + '[style]\npromt = "{prompt}"', "Unknown [style] key 'promt'. Did you mean prompt?"),
        (HEAD + "[style]\nprompt = 5", "[style] prompt must be text, got '5'"),
        (HEAD + '[style]\nprompt = "neon"', "[style] prompt must contain {prompt} once, got 'neon'"),
        (
            HEAD + '[style]\nprompt = "{prompt}{prompt}"',
            "[style] prompt must contain {prompt} once, got '{prompt}{prompt}'",
        ),
        (
            HEAD + '[style]\nnegative_prompt = "{prompt}"',
            "[style] negative_prompt must contain {negative_prompt} once, got '{prompt}'",
        ),
        ("a = " + "[" * 3_000, "nested too deeply"),
        ("x" * 4_097, "a line is longer than 4,096 characters"),
        ("#\n" * 40_000, "larger than 64 KB"),
        ("title = ", "not valid TOML: Invalid value (at end of document)"),
    ],
)
def test_a_malformed_file_is_an_error_of_one_line(text: str, line: str) -> None:
    with pytest.raises(PresetError) as caught:
        parsed(text)
    assert str(caught.value) == f"mine.toml: {line}"


@pytest.mark.parametrize("key", ["preset", "seed", "prompt_template"])
def test_settings_that_a_preset_must_not_contain(key: str) -> None:
    with pytest.raises(PresetError, match=rf"^mine\.toml: Unknown \[settings\] key '{key}'\. "):
        parsed(HEAD + f'[settings]\n{key} = "x"')


PATHS = ["./fox", "../fox", "/fox", "~/fox", "~", "C:/fox", "\\\\\\\\host\\\\fox", ".", "fox.safetensors"]


@pytest.mark.parametrize("field", ["model", "vae"])
@pytest.mark.parametrize("path", PATHS)
def test_a_preset_must_not_name_a_local_path(field: str, path: str) -> None:
    message = rf"^mine\.toml: \[settings\] {field} must be a bundled name or a hub id, got "
    with pytest.raises(PresetError, match=message):
        parsed(HEAD + f'[settings]\n{field} = "{path}"')


def test_a_preset_names_loras_without_a_path() -> None:
    assert parsed(HEAD + '[settings]\nlora = ["snow:0.5"]').settings == {"lora": ["snow:0.5"]}
    with pytest.raises(PresetError, match=r"lora must be a name in a folder, got '\.\./snow\.safetensors:0\.5'"):
        parsed(HEAD + '[settings]\nlora = ["../snow.safetensors:0.5"]')


@pytest.mark.parametrize("name", ["Mine.toml", "a b.toml", "-a.toml", "x" * 65 + ".toml", "mine.txt", ".toml"])
def test_invalid_file_names_are_refused(name: str) -> None:
    with pytest.raises(PresetError, match=r": the name must be a-z, 0-9, - and _, at most 64, then \.toml$"):
        parsed(HEAD, name)


def test_invalid_utf8_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"^mine\.toml: not valid TOML: 'utf-8' codec can't decode byte"):
        parse_preset(b"\xff", Path("mine.toml"))
    with pytest.raises(PresetError, match=r"^gone\.toml: cannot be read: No such file or directory$"):
        read_preset(tmp_path / "gone.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(PresetError, match=r"^folder\.toml: cannot be read: Is a directory$"):
        read_preset(tmp_path / "folder.toml")


GOOD = HEAD + '[settings]\nmodel = "a/b"\nsteps = 20\n[style]\nprompt = "{prompt}, neon"\n'


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_mutated_file_is_valid_or_a_preset_error(data: st.DataObject) -> None:
    changed = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed)))
        stop = data.draw(st.integers(start, min(len(changed), start + 8)))
        changed[start:stop] = data.draw(st.binary(max_size=6) | st.sampled_from([b"[", b"nan", b"=", b'"', b"\n"]))
    try:
        made = parse_preset(bytes(changed), Path("mine.toml"))
    except PresetError as error:
        assert str(error).isprintable()  # noqa: PT017
    else:
        Settings.from_dict(made.apply({"prompt": "a fox"}))
