from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipgen import home
from clipgen.errors import ClipgenError, SettingsError
from clipgen.sampling.schedulers import SCHEDULERS
from clipgen.settings.checks import LOCAL, MAX_SEED, SERVED, printable, split_target
from clipgen.settings.settings import FIELDS, LIST_FIELDS, MODEL_FIELDS, TEXT_FIELDS, Note, Settings, coerce, validate

DEFAULT = Settings("a fox")
NAMES = "off, clip, pick, steer, optimise, clip+pick"


def error_message(**fields: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings(**{"prompt": "a fox", **fields})
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    "fields, line",
    [
        ({"prompt": ""}, "prompt must not be empty"),
        ({"prompt": " \n\t"}, "prompt must not be empty"),
        ({"prompt": "x" * 2_001}, "prompt must be at most 2,000 characters, got 2,001"),
        ({"prompt": "a\r\n" * 2_000}, "prompt must be at most 2,000 characters, got 4,000"),
        ({"prompt": 5}, "prompt must be text, got '5'"),
        ({"prompt": b"fox"}, "prompt must be text, got 'a bytes'"),
        ({"prompt": None}, "prompt must be text, got 'None'"),
        (
            {"prompt": "a\udcfffox"},
            r"prompt must be valid UTF-8 without control characters (character 2), got '\udcff'",
        ),
        (
            {"negative_prompt": "a\x00"},
            r"negative_prompt must be valid UTF-8 without control characters (character 2), got '\x00'",
        ),
        ({"prompt": "a\rb"}, r"prompt must be valid UTF-8 without control characters (character 2), got '\r'"),
        ({"prompt": "\x9b"}, r"prompt must be valid UTF-8 without control characters (character 1), got '\x9b'"),
        ({"prompt_syntax": "comfy"}, "prompt_syntax must be a1111 or plain, got 'comfy'"),
        ({"long_prompt": ["cut"]}, "long_prompt must be cut or chunk or error, got 'a list'"),
        ({"prompt_template": ""}, "prompt_template must not be empty"),
        ({"model": "a\nb"}, r"model must be one line without spaces around it, got 'a\nb'"),
        ({"model": ""}, "model must not be empty"),
        ({"preset": "../x"}, "preset must be a preset name (a-z, 0-9, - and _, at most 64), got '../x'"),
        ({"seed": -1}, "seed must be random or 0 to 9223372036854775807, got '-1'"),
        ({"seed": 2**63}, "seed must be random or 0 to 9223372036854775807, got '9223372036854775808'"),
        ({"seed": 2.0**53}, "seed must be random or 0 to 9223372036854775807, got '9007199254740992.0'"),
        ({"images": 0}, "images must be 1 to 1000, got '0'"),
        ({"images": None}, "images must be 1 to 1000, got 'None'"),
        ({"steps": 0}, "steps must be 1 to 150, got '0'"),
        ({"steps": 151}, "steps must be 1 to 150, got '151'"),
        ({"steps": math.nan}, "steps must be 1 to 150, got 'nan'"),
        ({"steps": 20.5}, "steps must be 1 to 150, got '20.5'"),
        ({"steps": True}, "steps must be 1 to 150, got 'True'"),
        ({"steps": "20"}, "steps must be 1 to 150, got '20'"),
        ({"steps": 10**5_000}, "steps must be 1 to 150, got 'a number of 16,610 bits'"),
        ({"steps": [10**5_000]}, "steps must be 1 to 150, got 'a list'"),
        ({"steps": 51, "scheduler": "lcm"}, "steps must be 1 to 50 with scheduler lcm, got '51'"),
        ({"width": 100}, "width must be 64 to 2048 and a multiple of 8, got '100'"),
        ({"height": 56}, "height must be 64 to 2048 and a multiple of 8, got '56'"),
        ({"scheduler": "eulr"}, "Unknown scheduler 'eulr'. Did you mean euler?"),
        ({"scheduler": 3}, "scheduler must be text, got '3'"),
        ({"guidance_scale": math.nan}, "guidance_scale must be 0 to 50, got 'nan'"),
        ({"guidance_scale": math.inf}, "guidance_scale must be 0 to 50, got 'inf'"),
        ({"guidance_scale": -0.001}, "guidance_scale must be 0 to 50, got '-0.001'"),
        ({"guidance_scale": False}, "guidance_scale must be 0 to 50, got 'False'"),
        ({"guidance_scale": 10**400}, "guidance_scale must be 0 to 50, got 'a number of 1,329 bits'"),
        ({"guidance_scale": Fraction(10**5_000, 3)}, "guidance_scale must be 0 to 50, got 'a Fraction'"),
        ({"eta": 1.5}, "eta must be 0 to 1, got '1.5'"),
        ({"cfg_start": None}, "cfg_start must be 0 to 1, got 'None'"),
        ({"cfg_start": 0.6, "cfg_stop": 0.5}, "cfg_start must be below cfg_stop (0.5), got '0.6'"),
        ({"guidance_rescale": 2}, "guidance_rescale must be 0 to 1, got '2'"),
        ({"guidance": "magic"}, f"guidance must be {NAMES}, got 'magic'"),
        ({"guidance": "off+clip"}, f"guidance must be {NAMES}, got 'off+clip'"),
        ({"guidance": None}, f"guidance must be {NAMES}, got 'None'"),
        (
            {"guidance": "steer+pick"},
            f"guidance must be {NAMES} (both select which images continue), got 'steer+pick'",
        ),
        (
            {"guidance": "pick+optimise"},
            f"guidance must be {NAMES} (optimise runs its own sampling loop), got 'pick+optimise'",
        ),
        ({"budget": 0.5}, "budget must be 1 to 64, got '0.5'"),
        ({"budget": "much"}, "budget must be 1 to 64, got 'much'"),
        ({"budget": 2, "guidance": "clip"}, "budget must be left out if guidance is chosen by name, got '2'"),
        ({"particles": 1}, "particles must be 2 to 16, got '1'"),
        ({"iterations": 201}, "iterations must be 1 to 200, got '201'"),
        ({"guidance": "optimise", "guard": "off"}, "guard must be survival with guidance optimise, got 'off'"),
        (
            {"guidance": "steer", "guard": "two-key"},
            "guard must be off or survival with guidance steer, which has no gradient to veto, got 'two-key'",
        ),
        ({"apg": "yes"}, "apg must be true or false, got 'yes'"),
        ({"clip_guidance_scale": 1.1}, "clip_guidance_scale must be 0 to 1, got '1.1'"),
        ({"guidance_start": 0.8}, "guidance_start must be below guidance_stop (0.7), got '0.8'"),
        ({"candidates": 3}, "candidates must be 2, 4, 8 or 16, got '3'"),
        ({"through_unet": 1}, "through_unet must be true or false, got '1'"),
        ({"guide": "snow:1"}, "guide must be a list of at most 8 texts, got 'snow:1'"),
        ({"guide": ["x"] * 9}, "guide must be a list of at most 8 texts, got 'a list'"),
        ({"guide": ["snow:3"]}, "guide must be -2 to 2, got '3.0'"),
        ({"guide": [":1"]}, "guide must have a name or text before its weight, got ':1'"),
        ({"like": [3]}, "like must be text, got '3'"),
        ({"clip_models": ["a\nb"]}, r"clip_models must be one line without spaces around it, got 'a\nb'"),
    ],
)
def test_an_invalid_value_is_an_error_of_one_line_with_the_value_in_quotes(fields: dict[str, Any], line: str) -> None:
    assert error_message(**fields) == line


def test_values_are_converted_to_their_type() -> None:
    made = Settings(
        prompt="a fox\r\nin snow",
        steps=20.0,
        seed=np.int64(7),
        guidance_scale=5,
        cfg_start=-0.0,
        scheduler="DPM++ 2M Karras",
        guidance_rescale=np.float32(0.5),
    )
    assert (made.prompt, made.steps, made.seed, made.scheduler) == ("a fox\nin snow", 20, 7, "dpm++_2m_karras")
    assert [type(made.to_dict()[name]) for name in ("steps", "seed", "guidance_scale")] == [int, int, float]
    assert math.copysign(1, made.cfg_start) == 1
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()


def test_guidance_fields_accept_free_spelling() -> None:
    made = Settings("a fox", guidance="pick + clip", guide=["deep snow", "a dog:-.5", "time 12:30:2"])
    assert (made.guidance, made.guide) == ("clip+pick", ("deep snow:1", "a dog:-0.5", "time 12:30:2"))
    assert [split_target(target) for target in made.guide] == [("deep snow", 1), ("a dog", -0.5), ("time 12:30", 2)]
    assert coerce("guide", "snow:1\na dog:-1") == ("snow:1", "a dog:-1")
    assert coerce("through_unet", "Yes") is True
    assert [coerce("budget", text) for text in ("1.5x", "2", "none")] == [1.5, 2.0, None]
    assert [Settings("a fox", **fields).guided for fields in ({}, {"guidance": "pick"}, {"budget": "1.5x"})] == [
        *(False, True, True)
    ]
    assert json.loads(json.dumps(made.to_dict()))["guide"] == ["deep snow:1", "a dog:-0.5", "time 12:30:2"]


def test_minimum_and_maximum_of_every_limit_are_valid() -> None:
    Settings(prompt="x" * 2_000, steps=1, width=64, height=64, guidance_scale=0, eta=0, seed=0, images=1)
    Settings("x", steps=150, width=2048, height=2048, guidance_scale=50, eta=1, seed=MAX_SEED, images=1_000)


def test_a_public_server_has_lower_limits() -> None:
    def check_served(**fields: Any) -> None:
        validate(Settings(prompt="a fox", **fields), SERVED)

    check_served(width=1024, height=1024, steps=50, images=8)
    for fields, line in (
        ({"images": 9}, "images must be 1 to 8, got '9'"),
        ({"width": 1024, "height": 1032}, "width x height must be at most 1,048,576, got '1,056,768'"),
        (
            {"width": 1024, "height": 1024, "steps": 51, "images": 8},
            "width x height x steps x images must be at most 419,430,400, got '427,819,008'",
        ),
        (
            {"width": 1024, "height": 1024, "steps": 30, "guidance": "pick", "candidates": 16},
            "width x height x steps x images x candidates must be at most 419,430,400, got '503,316,480'",
        ),
        (
            {"width": 1024, "height": 1024, "steps": 50, "budget": 10},
            "width x height x steps x images x budget must be at most 419,430,400, got '524,288,000'",
        ),
    ):
        Settings(prompt="a fox", **fields)
        with pytest.raises(SettingsError) as caught:
            check_served(**fields)
        assert str(caught.value) == line


def test_the_error_for_an_unknown_field_suggests_a_field() -> None:
    with pytest.raises(SettingsError, match=r"^Unknown setting 'setps'\. Did you mean steps\?$") as caught:
        Settings.from_dict({"prompt": "a fox", "setps": 5})
    assert (caught.value.field, caught.value.allowed) == ("setps", list(FIELDS))
    with pytest.raises(SettingsError, match=r"^Unknown setting '7'\. Known: prompt, negative_prompt, .*\.$"):
        Settings("a fox").replace(**{"7": 5})
    with pytest.raises(SettingsError, match=r"^prompt must not be empty$"):
        Settings.from_dict({})


def test_replace_validates_and_does_not_change_the_original() -> None:
    made = Settings("a fox", steps=20)
    assert made.replace(steps=30) == Settings("a fox", steps=30)
    assert made.steps == 20
    with pytest.raises(SettingsError):
        made.replace(steps=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.steps = 3  # type: ignore[misc]


def test_defaults_of_a_model_replace_only_none() -> None:
    model = {
        "steps": 30,
        "width": 128,
        "height": 128,
        "scheduler": "Euler a",
        "guidance_scale": 4,
        "negative_prompt": "x",
    }
    filled = Settings("a fox", steps=5).with_defaults(model)
    assert filled == Settings(
        "a fox", steps=5, width=128, height=128, scheduler="euler_ancestral", guidance_scale=4, eta=None
    )


def test_every_field_has_a_help_text_and_a_type_hint_that_matches_its_default() -> None:
    hints = get_type_hints(Settings)
    assert set(MODEL_FIELDS) < set(FIELDS) == set(hints)
    lines = [field.metadata["help"] for field in dataclasses.fields(Settings)]
    assert all(0 < len(line) <= 90 and "\n" not in line and line[-1] == "." for line in lines)
    for field in dataclasses.fields(Settings):
        assert (field.default is None) is (type(None) in get_args(hints[field.name])), field.name


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("steps", "20", 20),
        ("steps", "20.0", 20),
        ("steps", "", None),
        ("steps", "None", None),
        ("seed", "random", None),
        ("seed", "7", 7),
        ("seed", "9007199254740993", 9007199254740993),
        ("guidance_scale", "7.5", 7.5),
        ("guidance_scale", "7", 7.0),
        ("scheduler", "Euler a", "euler_ancestral"),
        ("scheduler", "none", None),
        ("prompt", "none", "none"),
        ("prompt", "7", "7"),
        ("prompt_template", "none", None),
        ("negative_prompt", "", ""),
        ("preset", "fast", "fast"),
    ],
)
def test_coerce_parses_text(name: str, text: str, value: Any) -> None:
    parsed = coerce(name, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "name, text, line",
    [
        ("steps", "nan", "steps must be 1 to 150, got 'nan'"),
        ("steps", "many", "steps must be 1 to 150, got 'many'"),
        ("steps", "random", "steps must be 1 to 150, got 'random'"),
        ("images", "", "images must be 1 to 1000, got ''"),
        ("seed", "-1", "seed must be random or 0 to 9223372036854775807, got '-1'"),
        ("seed", "9" * 5_000, "seed must be random or 0 to 9223372036854775807, got 'inf'"),
        ("guidance_scale", "1e400", "guidance_scale must be 0 to 50, got 'inf'"),
        ("long_prompt", "fold", "long_prompt must be cut or chunk or error, got 'fold'"),
    ],
)
def test_coerce_refuses_invalid_text(name: str, text: str, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        coerce(name, text)
    assert str(caught.value) == line


def test_printable_returns_short_printable_text() -> None:
    assert printable("a\nb\udc80\x1b[31m") == r"a\nb\udc80\x1b[31m"
    assert printable("日本 é") == "日本 é"
    assert len(printable("x" * 10**6)) == 60
    assert Note("prompt-cut", "prompt", "cut").to_dict() == {"code": "prompt-cut", "field": "prompt", "message": "cut"}


def test_clipgen_home_contains_all_files_if_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGEN_HOME", str(tmp_path))
    assert home.config_path() == tmp_path / "config.toml"
    assert home.presets_dir() == tmp_path / "presets"
    assert home.history_path() == tmp_path / "history.db"
    monkeypatch.setenv("CLIPGEN_HOME", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert "clipgen" in home.config_dir().parts
    assert "clipgen" in home.data_dir().parts
    assert not list(tmp_path.iterdir())


TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=200)
VALID = st.fixed_dictionaries(
    {"prompt": TEXTS.filter(str.strip)},
    optional={
        "negative_prompt": TEXTS,
        "prompt_syntax": st.sampled_from(["a1111", "plain"]),
        "long_prompt": st.sampled_from(["cut", "error"]),
        "prompt_template": st.none() | TEXTS.filter(str.strip),
        "model": st.sampled_from(["storybook", "org/name@main", "./folder", "C:\\models\\fox"]),
        "preset": st.none() | st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True),
        "seed": st.none() | st.integers(0, MAX_SEED),
        "images": st.integers(1, 1_000),
        "steps": st.none() | st.integers(1, 50) | st.integers(1, 50).map(float),
        "width": st.none() | st.integers(8, 256).map(lambda k: 8 * k),
        "height": st.none() | st.integers(8, 256).map(lambda k: 8 * k),
        "scheduler": st.none() | st.sampled_from([name for spec in SCHEDULERS.values() for name in spec.aliases]),
        "guidance_scale": st.none() | st.floats(0, 50) | st.integers(0, 50),
        "eta": st.none() | st.floats(0, 1),
        "cfg_start": st.floats(0, 0.4),
        "cfg_stop": st.floats(0.5, 1),
        "guidance_rescale": st.floats(0, 1),
    },
)
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**53, 2**63, 2**70, -(2**70), 10**5_000, 1e308, 5e-324, -0.0]),
    st.floats(),
    st.text(st.characters(), max_size=50),
    st.sampled_from(["x" * 10**6, "\udc80", "\x00", "a\r\nb", "random", "nan", "1e999", "", "dpm++_2m", "lcm"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.binary(max_size=5),
    st.fractions(),
    st.complex_numbers(),
)


def result_or_error(call: Callable[[], Any]) -> tuple[Any, Any]:
    try:
        return call(), None
    except ClipgenError as error:
        return None, error


def invalid_message(error: ClipgenError) -> str:
    """Returns the message if it is too long or not printable, else an empty string."""
    return str(error) if len(str(error)) > 500 or not str(error).isprintable() else ""


@settings(max_examples=500, deadline=None)
@given(VALID)
def test_valid_settings_are_equal_after_a_json_round_trip(values: dict[str, Any]) -> None:
    made = Settings.from_dict(values)
    assert Settings.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.replace() == made
    validate(made, LOCAL)


@settings(max_examples=2_000, deadline=None)
@given(st.sampled_from(FIELDS), JUNK)
def test_any_value_is_valid_or_an_error_of_one_line(name: str, value: Any) -> None:
    made, error = result_or_error(lambda: Settings.from_dict({"prompt": "a fox", name: value}))
    if made is None:
        assert not invalid_message(error)
        json.dumps(error.to_dict()).encode()
    else:
        assert Settings.from_dict(json.loads(json.dumps(made.to_dict()))) == made
        assert not isinstance(value, bool) or isinstance(getattr(DEFAULT, name), bool)
        made.prompt.encode()


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(FIELDS), st.text(st.characters(), max_size=30) | st.floats().map(str) | st.integers().map(str))
def test_any_text_is_parsed_or_an_error_of_one_line(name: str, text: str) -> None:
    value, error = result_or_error(lambda: coerce(name, text))
    if error:
        assert not invalid_message(error)
    else:
        assert value is None or isinstance(value, str) is (name in TEXT_FIELDS)
        assert isinstance(value, tuple) is (name in LIST_FIELDS)
