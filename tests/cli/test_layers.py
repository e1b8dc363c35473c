"""Precedence: one test per pair of neighbouring layers, presets in any layer, replays, invalid files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipgen.cli import layers
from clipgen.cli.config_file import read_project, read_user
from clipgen.cli.layers import Layer, resolve, with_model
from clipgen.errors import PresetError, SettingsError
from clipgen.home import config_path, presets_dir
from clipgen.image_file import make_record
from clipgen.image_file.record import to_json
from clipgen.settings.settings import FIELDS, Settings

from .conftest import Run

PRESET = 'schema = 1\ntitle = "T"\nabout = "A."\n[settings]\n{settings}\n[style]\nprompt = "{{prompt}}, washed"\n'


def user_preset(name: str, settings: str) -> None:
    presets_dir().mkdir(parents=True, exist_ok=True)
    (presets_dir() / f"{name}.toml").write_text(PRESET.format(settings=settings))


def picture(**changes: Any) -> Path:
    """Writes a record file for `--from`."""
    settings = Settings.from_dict({"prompt": "an owl", "seed": 5, "steps": 9, "width": 64, "height": 64, **changes})
    runtime = {"clipgen": "0.1.0", "torch": "", "diffusers": "", "device": "cpu", "dtype": "float32", "rng": "cpu"}
    model = {"name": settings.model, "hash": "0", "family": "stable_diffusion"}
    record = make_record(settings, seed=5, clip=None, model=model, runtime=runtime)
    path = Path("owl.json")
    path.write_text(to_json(record))
    return path


def layer_of(run: Run, field: str, *flags: str) -> tuple[Any, str]:
    """Returns the merged value of a field and the name of its layer."""
    ran = run("--dry-run", "--json", "a fox", *flags)
    assert ran.code == 0, ran.err
    cell = ran.data["runs"][0][field]
    return cell["value"], cell["from"]


@pytest.fixture(autouse=True)
def all_layers(light_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer below the options sets one field more than the layer above it."""
    user_preset("washed", "steps = 41\nguidance_scale = 4.1\neta = 0.41\ncfg_stop = 0.41\nwidth = 64\nheight = 64")
    monkeypatch.setenv("CLIPGEN_CFG_STOP", "0.43")
    monkeypatch.setenv("CLIPGEN_GUIDANCE_RESCALE", "0.43")
    Path("clipgen.toml").write_text("guidance_rescale = 0.44\ncfg_start = 0.24\n")
    config_path().write_text(f'cfg_start = 0.25\nscheduler = "euler"\nmodel = "{light_model}"\n')


def test_flag_over_preset(run: Run) -> None:
    assert layer_of(run, "steps", "--preset", "washed", "--steps", "40") == (40, "--steps")
    assert layer_of(run, "steps", "--preset", "washed") == (41, "preset washed")


def test_preset_over_from(run: Run, light_model: str) -> None:
    name = str(picture(eta=0.42, model=light_model))
    assert layer_of(run, "eta", "--preset", "washed", "--from", name) == (0.41, "preset washed")
    assert layer_of(run, "eta", "--from", name) == (0.42, "from owl.json")


def test_from_over_environment(run: Run, light_model: str) -> None:
    name = str(picture(cfg_stop=0.42, model=light_model))
    assert layer_of(run, "cfg_stop", "--from", name) == (0.42, "from owl.json")
    assert layer_of(run, "cfg_stop") == (0.43, "CLIPGEN_CFG_STOP")


def test_environment_over_project_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert layer_of(run, "guidance_rescale") == (0.43, "CLIPGEN_GUIDANCE_RESCALE")
    monkeypatch.delenv("CLIPGEN_GUIDANCE_RESCALE")
    assert layer_of(run, "guidance_rescale") == (0.44, "./clipgen.toml")


def test_project_file_over_user_file(run: Run) -> None:
    assert layer_of(run, "cfg_start") == (0.24, "./clipgen.toml")
    Path("clipgen.toml").unlink()
    assert layer_of(run, "cfg_start") == (0.25, "config.toml")


def test_user_file_over_model(run: Run, light_model: str) -> None:
    assert layer_of(run, "scheduler") == ("euler", "config.toml")
    config_path().write_text(f'model = "{light_model}"\n')
    assert layer_of(run, "scheduler") == ("ddim", "model ./light")


def test_model_over_settings(run: Run) -> None:
    assert layer_of(run, "steps") == (25, "model ./light")
    assert layer_of(run, "images") == (1, "default")


def test_every_field_has_a_layer(run: Run) -> None:
    ran = run("--dry-run", "a fox")
    assert [line.split("\t")[0] for line in ran.lines] == list(FIELDS)
    assert all(line.split("\t")[2] for line in ran.lines)


def test_a_preset_is_just_below_the_layer_that_names_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("clipgen.toml").write_text('preset = "washed"\nguidance_scale = 4.4\n')
    assert layer_of(run, "guidance_scale") == (4.4, "./clipgen.toml")
    assert layer_of(run, "cfg_stop") == (0.43, "CLIPGEN_CFG_STOP")
    assert layer_of(run, "steps") == (41, "preset washed")
    config_path().write_text("steps = 45\n" + config_path().read_text())
    assert layer_of(run, "steps") == (41, "preset washed")


def test_the_highest_preset_is_the_only_one(run: Run) -> None:
    Path("clipgen.toml").write_text('preset = "washed"\n')
    assert layer_of(run, "prompt") == ("a fox, washed", "--prompt")
    assert layer_of(run, "prompt", "--preset", "neon") == ("a fox, neon", "--prompt")
    assert layer_of(run, "steps", "--preset", "neon") == (25, "model ./light")
    assert layer_of(run, "prompt", "--preset", "none") == ("a fox", "--prompt")


def test_a_replayed_preset_is_a_label(run: Run, light_model: str) -> None:
    name = str(picture(preset="washed", prompt="an owl, washed", model=light_model))
    Path("clipgen.toml").write_text('preset = "neon"\n')
    ran = run("generate", "--dry-run", "--json", "--from", name)
    values = {field: cell["value"] for field, cell in ran.data["runs"][0].items()}
    assert (values["prompt"], values["preset"], values["steps"], values["seed"]) == ("an owl, washed", "washed", 9, 5)


def test_another_prompt_removes_the_template(run: Run, light_model: str) -> None:
    name = str(picture(prompt="a red owl", prompt_template="a {red|blue} owl", model=light_model))
    replayed = run("generate", "--dry-run", "--json", "--from", name).data["runs"][0]
    assert (replayed["prompt"]["value"], replayed["prompt_template"]["value"]) == ("a red owl", "a {red|blue} owl")
    assert layer_of(run, "prompt_template", "--from", name)[0] is None


def test_from_a_toml_file(run: Run) -> None:
    Path("look.toml").write_text('steps = 33\npreset = "washed"\n')
    assert layer_of(run, "steps", "--from", "look.toml") == (33, "from look.toml")
    assert layer_of(run, "eta", "--from", "look.toml") == (0.41, "preset washed")


def test_missing_model_fields_come_from_the_model() -> None:
    full = with_model(resolve([Layer("flags", {"prompt": "a", "steps": None})]), {"steps": 12}, "m")
    assert (full.values["steps"], full.origins["steps"]) == (12, "model m")
    assert (full.values["width"], full.origins["width"]) == (None, "default")
    assert list(full.values) == list(FIELDS)


def test_unknown_variables_are_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGEN_STEP", "3")
    monkeypatch.setenv("CLIPGEN_NEGATIVE_PROMPT", "")
    ran = run("--dry-run", "a fox")
    expected = "warning: Unknown environment variable 'CLIPGEN_STEP'. Did you mean CLIPGEN_STEPS?\n"
    assert (ran.code, ran.err) == (0, expected)


@pytest.mark.parametrize(
    "variable, value, message",
    [
        ("CLIPGEN_STEPS", "many", "CLIPGEN_STEPS: steps must be 1 to 150, got 'many'"),
        ("CLIPGEN_PRESET", "fsat", "Unknown preset 'fsat'."),
    ],
)
def test_invalid_variables(run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    monkeypatch.setenv(variable, value)
    ran = run("--dry-run", "a fox")
    assert ran.code == 2
    assert message in ran.err


@pytest.mark.parametrize(
    "text, message",
    [
        ("step = 3", "Unknown key 'step'. Did you mean steps?"),
        ("steps = 0", "steps must be 1 to 150, got '0'"),
        ("steps = true", "steps must be 1 to 150, got 'True'"),
        ("prompt = [1]", "prompt must be text, got 'a list'"),
        ("[output]\npath = 'x'", "Unknown key 'output'."),
        ("steps = ", "not valid TOML"),
        ("a" * 70_000, "larger than 64 KB"),
        ("x = " + "[" * 3000, "nested too deeply"),
        ("'" + "x" * 5000 + "' = 1", "a line is longer than 4,096 characters"),
    ],
)
def test_errors_of_project_files_name_file_and_key(text: str, message: str) -> None:
    Path("clipgen.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"^'clipgen.toml': ") as caught:
        read_project(Path("clipgen.toml"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[output]\nformt = 'png'", "Unknown key in [output] 'formt'. Did you mean format?"),
        ("[output]\nformat = 'gif'", "output.format must be png, jpeg, webp, got 'gif'"),
        ("[output]\nquality = 0", "output.quality must be 1 to 100, got '0'"),
        ("[output]\nquality = true", "output.quality must be a whole number, got 'True'"),
        ("[history]\non = 'yes'", "history.on must be true or false, got 'yes'"),
        ("output = 'x'", "Unknown key 'output'."),
        ("[server]\nhost = 'x'", "Unknown key 'server'."),
    ],
)
def test_errors_of_user_files(text: str, message: str) -> None:
    config_path().write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_user()
    assert message in str(caught.value)


def test_the_user_file_has_tables() -> None:
    config_path().write_text("steps = 3\nseed = 'random'\n[output]\nquality = 80\n[history]\non = false\n")
    user = read_user()
    assert user.settings == {"steps": 3, "seed": None}
    assert user.tables == {"output.quality": 80, "history.on": False}


def test_unknown_presets_and_other_variables() -> None:
    with pytest.raises(PresetError):
        resolve([Layer("flags", {"preset": "no-such"})])
    environment, notes = layers.environment({"CLIPGEN_HOME": "x", "CLIPGEN_SEED": "random", "HOME": "y"})
    assert (environment.values, notes) == ({"seed": None}, [])
