"""The form: every field has its place, and settings survive the way into the form and back."""

from __future__ import annotations

import pytest
from clipgen.ui import form
from hypothesis import given, settings
from hypothesis import strategies as some

from clipgen.errors import SettingsError
from clipgen.settings.preset import load_preset, preset_names
from clipgen.settings.settings import DEFAULTS, FIELDS, Settings

HERE = ("storybook",)


def test_every_field_is_on_the_page_once() -> None:
    assert sorted([*form.SHOWN, *form.LEFT_OUT]) == sorted([*FIELDS, *form.WEIGHTS.values()])


def test_names_read_as_words() -> None:
    names = [form.label(name) for name in ("guidance_scale", "clip_guidance_scale", "cfg_start", "through_unet")]
    assert names == ["Guidance scale", "CLIP guidance scale", "CFG start", "Through UNet"]


@settings(max_examples=60, deadline=None)
@given(
    some.builds(
        Settings,
        prompt=some.text(alphabet="abc (x:1.1){|}", min_size=1).filter(str.strip),
        seed=some.none() | some.integers(0, 2**63 - 1),
        steps=some.none() | some.integers(1, 150),
        guidance_scale=some.none() | some.sampled_from([0, 1.5, 7]),
        scheduler=some.sampled_from([None, "ddim", "dpm++_2m_karras"]),
        preset=some.sampled_from([None, "pencil"]),
        guidance=some.sampled_from(["off", "clip+pick"]),
        guide=some.lists(some.sampled_from(["snow:0.5", "a dog:-1"]), max_size=3),
        through_unet=some.booleans(),
    )
)
def test_settings_go_into_the_form_and_come_back(wanted: Settings) -> None:
    assert Settings.from_dict(form.read(form.write(wanted.to_dict(), HERE))) == wanted


def test_a_strange_model_leaves_the_choice() -> None:
    written = dict(zip(form.SHOWN, form.write(Settings("a fox", model="./elsewhere").to_dict(), HERE), strict=True))
    assert isinstance(written["model"], dict)
    assert written["prompt"] == "a fox"


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_fills_in_its_settings_and_takes_back_anothers(name: str) -> None:
    shown = dict(zip(form.SHOWN, form.preset_values(name), strict=True))
    own = load_preset(name).settings
    assert {field: value for field, value in shown.items() if field in own} == {
        field: form._shown(field, value) for field, value in own.items()
    }
    assert shown["steps"] == str(own.get("steps", ""))
    assert form.about(name) == load_preset(name).about


def test_raw_values_are_refused_with_their_field() -> None:
    raw = form.write(Settings("a fox").to_dict(), HERE)
    for name, bad in (("seed", "-1"), ("steps", "many"), ("width", "65"), ("guidance", ["clip"]), ("images", None)):
        values = list(raw)
        values[form.SHOWN.index(name)] = bad
        with pytest.raises(SettingsError) as error:
            Settings.from_dict(form.read(values))
        assert error.value.field == name


def test_a_picture_in_its_field_is_a_target_with_its_weight() -> None:
    shown = dict(zip(form.SHOWN, form.write(Settings("a fox").to_dict(), HERE), strict=True))
    raw = {**shown, "like": {"path": "/shelf/owl.png", "meta": {"_type": "gradio.FileData"}}, form.LIKE_WEIGHT: -0.5}
    settings = Settings.from_dict(form.read(list(raw.values())))
    assert settings.like == ("/shelf/owl.png:-0.5",)
    back = dict(zip(form.SHOWN, form.write(settings.to_dict(), HERE, lambda path: True), strict=True))
    assert (back["like"], back[form.LIKE_WEIGHT]) == ("/shelf/owl.png", -0.5)
    assert dict(zip(form.SHOWN, form.write(settings.to_dict(), HERE), strict=True))["like"] is None
    raw = {**raw, "like": None, "vary": {"path": "/shelf/owl.png"}, form.VARY_WEIGHT: 0.5, "prompt": ""}
    settings = Settings.from_dict(form.read(list(raw.values())))
    assert (settings.prompt, settings.like, settings.vary) == ("", (), "/shelf/owl.png:0.5")
    back = dict(zip(form.SHOWN, form.write(settings.to_dict(), HERE, lambda path: True), strict=True))
    assert (back["vary"], back[form.VARY_WEIGHT]) == ("/shelf/owl.png", 0.5)


def test_defaults_are_those_of_settings() -> None:
    written = form.read(form.write(Settings("a fox").to_dict(), HERE))
    assert {name: value for name, value in written.items() if name != "prompt"} == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in DEFAULTS.items()
        if name in form.SHOWN
    }
