"""The form has a component for each Settings field, and settings survive the round trip through it."""

from __future__ import annotations

import pytest
from clipgen.ui.form import fields, values
from hypothesis import given, settings
from hypothesis import strategies as st

from clipgen.errors import SettingsError
from clipgen.settings.preset import load_preset, preset_names
from clipgen.settings.settings import DEFAULTS, FIELDS, Settings

MODELS = ("storybook",)
UPLOAD = {"path": "/store/owl.png", "meta": {"_type": "gradio.FileData"}}


def test_every_field_is_in_the_form_once() -> None:
    assert sorted([*fields.FIELD_ORDER, *fields.HIDDEN]) == sorted([*FIELDS, *fields.WEIGHTS.values()])


def test_labels() -> None:
    names = ("guidance_scale", "clip_guidance_scale", "cfg_start", "through_unet")
    labels = ["Guidance scale", "CLIP guidance scale", "CFG start", "Through UNet"]
    assert [fields.label(name) for name in names] == labels


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Settings,
        prompt=st.text(alphabet="abc (x:1.1){|}", min_size=1).filter(str.strip),
        seed=st.none() | st.integers(0, 2**63 - 1),
        steps=st.none() | st.integers(1, 150),
        guidance_scale=st.none() | st.sampled_from([0, 1.5, 7]),
        scheduler=st.sampled_from([None, "ddim", "dpm++_2m_karras"]),
        preset=st.sampled_from([None, "pencil"]),
        guidance=st.sampled_from(["off", "clip+pick"]),
        guide=st.lists(st.sampled_from(["snow:0.5", "a dog:-1"]), max_size=3),
        through_unet=st.booleans(),
        lora=st.lists(st.sampled_from(["snow:0.5", "my style:-1"]), max_size=2),
        clip_skip=st.integers(0, 11),
    )
)
def test_settings_survive_the_round_trip_through_the_form(expected: Settings) -> None:
    assert Settings.from_dict(values.read(values.write(expected.to_dict(), MODELS))) == expected


def test_an_unknown_model_leaves_the_model_field_as_it_is() -> None:
    form = values.write(Settings("a fox", model="./elsewhere").to_dict(), MODELS)
    written = dict(zip(fields.FIELD_ORDER, form, strict=True))
    assert isinstance(written["model"], dict)
    assert written["prompt"] == "a fox"


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_sets_its_fields_and_resets_those_of_other_presets(name: str) -> None:
    form = dict(zip(fields.FIELD_ORDER, values.apply_preset(name), strict=True))
    preset = load_preset(name).settings
    assert {field: value for field, value in form.items() if field in preset} == {
        field: values.to_component(field, value) for field, value in preset.items()
    }
    assert form["steps"] == str(preset.get("steps", ""))
    assert values.preset_description(name) == load_preset(name).about


@pytest.mark.parametrize(
    ("name", "value"), [("seed", "-1"), ("steps", "many"), ("width", "65"), ("guidance", ["clip"]), ("images", None)]
)
def test_an_invalid_value_raises_an_error_that_names_the_field(name: str, value: object) -> None:
    form = values.write(Settings("a fox").to_dict(), MODELS)
    form[fields.FIELD_ORDER.index(name)] = value
    with pytest.raises(SettingsError) as error:
        Settings.from_dict(values.read(form))
    assert error.value.field == name


def form_with(**changes: object) -> list[object]:
    form = dict(zip(fields.FIELD_ORDER, values.write(Settings("a fox").to_dict(), MODELS), strict=True))
    return list({**form, **changes}.values())


@pytest.mark.parametrize(
    ("name", "weight", "expected"),
    [("like", -0.5, ("/store/owl.png:-0.5",)), ("vary", 0.5, "/store/owl.png:0.5")],
)
def test_an_image_field_is_a_file_and_a_weight(name: str, weight: float, expected: object) -> None:
    form = form_with(**{"prompt": "", "vary": UPLOAD, name: UPLOAD, fields.WEIGHTS[name]: weight})
    settings = Settings.from_dict(values.read(form))
    assert settings.to_dict()[name] == (list(expected) if isinstance(expected, tuple) else expected)
    written = values.write(settings.to_dict(), MODELS, lambda path: True)
    shown = dict(zip(fields.FIELD_ORDER, written, strict=True))
    assert (shown[name], shown[fields.WEIGHTS[name]]) == ("/store/owl.png", weight)


def test_an_image_that_is_not_in_the_store_is_not_shown() -> None:
    settings = Settings("a fox", like=("/store/owl.png:1",))
    form = dict(zip(fields.FIELD_ORDER, values.write(settings.to_dict(), MODELS), strict=True))
    assert form["like"] is None


def test_the_form_starts_with_the_defaults_of_settings() -> None:
    written = values.read(values.write(Settings("a fox").to_dict(), MODELS))
    assert {name: value for name, value in written.items() if name != "prompt"} == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in DEFAULTS.items()
        if name in fields.FIELD_ORDER and name != "prompt"
    }
