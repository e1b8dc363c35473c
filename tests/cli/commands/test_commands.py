"""The commands models, presets, history, doctor and completion."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clipgen
from clipgen import history
from clipgen.cli import complete
from clipgen.cli.commands import doctor
from clipgen.cli.commands.completion import SHELLS
from clipgen.home import history_path, install_command, presets_dir
from clipgen.sampling.schedulers import SCHEDULERS
from clipgen.settings.settings import Settings

from ..conftest import Run

ROOT = Path(__file__).resolve().parents[3]
PRESET = 'schema = 1\ntitle = "Mine"\nabout = "My own."\n[settings]\nsteps = 9\n'


def test_models_show_and_check(run: Run, tiny_v: Path) -> None:
    name = str(tiny_v)
    rows = dict(line.split("\t") for line in run("models", "show", name).lines)
    assert (rows["from"], rows["path"], rows["steps"], rows["scheduler"]) == ("folder", name, "4", "ddim")
    assert len(rows["hash"]) == 64
    checked = run("models", "check", name)
    assert checked.out == f"{name}: valid (stable_diffusion: unet, vae, text_encoder, clip)\n"
    assert run("models", "check", name, "--json").data["ok"]
    assert run("models", "check", name, "--verify").code == 1
    assert run("models", "pull", name).out == f"{name}\n"


def test_models_show_words(run: Run, tiny_v: Path) -> None:
    lines = run("models", "show", "storybook", "--words").lines
    assert max(map(len, lines)) <= 80
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings[:2] == [f"{len(clipgen.known_words()['things'])} things", "14 places"]
    assert any("truck (lorry, " in line for line in lines)
    assert run("models", "show", "storybook", "--words", "--json").data["words"] == clipgen.known_words()
    ran = run("models", "show", str(tiny_v), "--words")
    assert (ran.code, ran.out) == (1, "")
    assert "has no list of words" in ran.err
    assert clipgen.known_words(str(tiny_v)) == {}


def test_models_check_prints_the_first_error(run: Run, tiny_v: Path) -> None:
    folder = Path(shutil.copytree(tiny_v, "model"))
    (folder / "unet" / "config.json").write_text("{")
    ran = run("models", "check", "./model")
    assert (ran.code, ran.out) == (1, "")
    assert "unet/config.json" in ran.err


@pytest.mark.parametrize("verb", ["show", "check", "pull"])
def test_unknown_models(run: Run, verb: str) -> None:
    assert run("models", verb, "org/name").code == 3
    assert run("models", verb, "./name").code == 3
    assert run("models", verb, "name").code == 2


def test_models_list(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run("models", "list", "--json")
    assert ran.code == 0
    assert all(model.keys() == {"name", "kind", "family", "bytes", "path"} for model in ran.data["models"])
    assert all(model["family"] == "stable_diffusion" for model in ran.data["models"] if model["kind"] == "bundled")
    assert run("models").out == run("models", "list").out


def test_models_list_marks_unsupported_families(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kinds = {"good": "FluxPipeline", "other": "KolorsPipeline"}
    for name, kind in kinds.items():
        folder = tmp_path / f"models--org--{name}" / "snapshots" / ("0" * 40)
        folder.mkdir(parents=True)
        (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    broken = tmp_path / "models--org--torn" / "snapshots" / ("0" * 40)
    broken.mkdir(parents=True)
    (broken / "model_index.json").write_text("{")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    rows = {line.split("\t")[0]: line.split("\t")[-1] for line in run("models", "list").lines}
    assert {name: rows[f"org/{name}"] for name in ("good", "other", "torn")} == {
        "good": "flux",
        "other": "not supported",
        "torn": "not supported",
    }


def test_models_families(run: Run) -> None:
    rows = dict(line.split("\t", 1) for line in run("models", "families").lines)
    diffusion, varying = (
        {"stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "latent_consistency"},
        {"stable_unclip", "kandinsky_2_2"},
    )
    assert rows.keys() == diffusion | {"flux", "flux_2_klein", "chroma", "qwen_image", "z_image"} | varying
    assert rows["flux"] == "FluxPipeline\tflow\tdistilled (dev), none (schnell)"
    rows_in_json = run("models", "families", "--json").data["families"]
    assert rows_in_json == run("models", "list", "--json").data["families"]
    assert rows_in_json[0] == {
        "family": "stable_diffusion",
        "classes": ["StableDiffusionPipeline"],
        "predictions": ["epsilon", "v_prediction", "sample"],
        "guidance": "classifier-free",
    }


def test_presets(run: Run) -> None:
    assert any(line.startswith("fast\tbundled\t") for line in run("presets").lines)
    rows = dict(line.split("\t") for line in run("presets", "show", "fast").lines)
    assert rows["steps"] == "8"
    assert run("presets", "show", "neon", "--json").data["style prompt"] == "{prompt}, neon"


def test_own_presets(run: Run) -> None:
    presets_dir().mkdir(parents=True)
    (presets_dir() / "fast.toml").write_text(PRESET)
    assert "fast\tyours, instead of the bundled one\tMy own." in run("presets", "list").lines
    Path("good.toml").write_text(PRESET)
    assert run("presets", "check", "good.toml").out == "good: valid\n"
    assert run("presets", "check", "fast").code == 0
    Path("bad.toml").write_text(PRESET.replace("steps", "stps"))
    ran = run("presets", "check", "bad.toml")
    assert ran.code == 2
    assert "bad.toml: " in ran.err
    assert "steps" in ran.err
    assert run("presets", "show", "fsat").code == 2


def test_history(run: Run) -> None:
    for prompt in ("a fox in snow", "an owl"):
        Path("x.png").write_bytes(prompt.encode())
        history.record(Path("x.png"), Settings(prompt, seed=7), clip={"percentile": 97.2, "curve": []})
    lines = run("history").lines
    assert [line.split("\t")[0] for line in lines] == ["2", "1"]
    assert lines[0].split("\t")[2:5] == ["7", "97%", "an owl"]
    assert [line.split("\t")[0] for line in run("history", "list", "fox").lines] == ["1"]
    assert len(run("history", "list", "--limit", "1").lines) == 1
    rows = dict(line.split("\t") for line in run("history", "show", "1").lines)
    assert (rows["prompt"], rows["command"]) == ("a fox in snow", "clipgen 'a fox in snow' --seed 7")
    assert run("history", "path", "2").out == f"{Path('x.png').absolute()}\n"
    assert run("history", "path").out == f"{history_path()}\n"
    assert run("history", "list", "--json").data["pictures"][0]["settings"]["prompt"] == "an owl"
    assert run("history", "forget").code == 2
    assert run("history", "forget", "1", "--all").code == 2
    assert run("history", "forget", "1").err == "Removed 1 from the history; the files are kept.\n"
    assert run("history", "forget", "--all", "--json").data == {"forgotten": 1}
    assert Path("x.png").exists()


def test_history_off_and_on(run: Run) -> None:
    assert run("history", "off").err == "The history is off.\n"
    assert run("config", "get", "history.on").out == "false\n"
    run("history", "on")
    assert run("config", "get", "history.on").out == "true\n"


def test_doctor(run: Run) -> None:
    ran = run("doctor", "--json")
    checks = {check["topic"]: check for check in ran.data["checks"]}
    assert {"versions", "torch", "device", "storybook", "hub cache", "pictures", "terminal", "config"} <= checks.keys()
    assert ran.code == (1 if any(not check["ok"] for check in checks.values()) else 0)
    assert all(check["fix"] for check in checks.values() if not check["ok"])
    assert "torchvision" not in checks


@pytest.mark.parametrize(
    "vision, torch, matches",
    [
        ("0.28.0", "2.13.0", True),
        ("0.28.0+cpu", "2.13.1+cpu", True),
        ("0.28.0", "2.13.0+cpu", False),
        ("0.29.2", "2.13.0", False),
        ("0.28.0+cu126", "2.13.0+cpu", False),
    ],
)
def test_torchvision_must_match_torch(
    vision: str, torch: str, matches: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("torchvision", vision), ("torch", torch)):
        folder = tmp_path / "site" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    [finding] = doctor.torchvision()
    assert finding.ok is matches
    assert matches or "pip uninstall torchvision" in (finding.fix or "")


def test_doctor_lists_files_and_variables_that_change_defaults(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGEN_STEPS", "3")
    monkeypatch.setenv("CLIPGEN_STPES", "3")
    Path("clipgen.toml").write_text("seed = 1")
    findings = list(doctor.configuration())
    assert "CLIPGEN_STEPS, ./clipgen.toml" in findings[0].text
    assert "CLIPGEN_STPES" in findings[1].text
    assert not findings[1].ok
    Path("clipgen.toml").write_text("sed = 1")
    [broken] = doctor.configuration()
    assert "Did you mean seed?" in broken.text


def test_a_report_contains_neither_home_folder_nor_user_name(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = run("doctor", "--report")
    assert str(tmp_path) not in ran.out
    assert "~" in ran.out
    words = {word for line in ran.lines for word in line.replace("/", " ").split()}
    assert getpass.getuser() not in words


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts(run: Run, shell: str) -> None:
    ran = run("completion", shell)
    assert ran.code == 0
    assert "_CLIPGEN_COMPLETE" in ran.out
    assert (
        run("completion", "tcsh").err == "clipgen: Unknown shell 'tcsh'. Shells: bash, zsh, fish, powershell, pwsh.\n"
    )


@pytest.mark.parametrize(
    "line, choices",
    [
        ("clipgen ", {"generate", "again", "history", "doctor"}),
        ("clipgen h", {"history", "help"}),
        ("clipgen generate --cut", {"--cutouts"}),
        ("clipgen --st", {"--steps"}),
        ("clipgen generate --gu", {"--guidance-scale", "--guidance-rescale"}),
        ("clipgen generate --scheduler eul", {"euler", "euler_ancestral", "euler_karras"}),
        ("clipgen generate --preset ne", {"neon"}),
        ("clipgen a --preset ne", {"neon"}),
        ("clipgen models ch", {"check"}),
        ("clipgen config get hist", {"history.on"}),
        ("clipgen completion z", {"zsh"}),
        ("clipgen again ", {"1"}),
    ],
)
def test_completion(line: str, choices: set[str]) -> None:
    Path("x.png").write_bytes(b"")
    history.record(Path("x.png"), Settings("a fox"))
    words = line.split(" ")
    code = (
        "import sys, atexit\n"
        "heavy = {'torch', 'diffusers', 'transformers'}\n"
        "atexit.register(lambda: print(sorted(heavy & sys.modules.keys()), file=sys.stderr))\n"
        "from clipgen.cli import main\nmain([])"
    )
    bash = {"_CLIPGEN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **bash})
    assert choices <= set(ran.stdout.split()), ran.stderr
    assert ran.stderr == "[]\n"


def test_completion_values() -> None:
    assert len(complete.schedulers()) == len(SCHEDULERS)
    assert dict(complete.presets())["fast"]
    assert complete.ids() == []
    assert all(isinstance(name, str) for name, _ in complete.models())


CHECKOUT = {"url": "file:///src/my%20clipgen", "dir_info": {}}


@pytest.mark.parametrize(
    "origin, expected",
    [
        ({**CHECKOUT, "dir_info": {"editable": True}}, "pip install -e '/src/my clipgen[train]'"),
        (CHECKOUT, "pip install '/src/my clipgen[train]'"),
        (
            {"url": "file:///tmp/clipgen-0.1.0-py3-none-any.whl"},
            "pip install '/tmp/clipgen-0.1.0-py3-none-any.whl[train]'",
        ),
        (
            {"url": "https://example.org/clipgen.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'clipgen[train] @ git+https://example.org/clipgen.git@abc'",
        ),
        (None, "install clipgen[train] again from its checkout or wheel"),
    ],
)
def test_install_commands_name_the_origin_of_this_copy(
    origin: dict[str, object] | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site" / "clipgen-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: clipgen\nVersion: 0.1.0\n")
    if origin:
        (folder / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert install_command("train") == expected
    plain = "pip install --force-reinstall --no-deps /src/my"
    assert origin is not CHECKOUT or install_command(reinstall=True).replace("'", "").startswith(plain)


def test_no_message_advises_the_name_on_the_package_index() -> None:
    sources = [*(ROOT / "clipgen").rglob("*.py"), *(ROOT / "ui").rglob("*.py"), *ROOT.glob("*.md")]
    assert not [path for path in sources if re.search(r"pip3? install[^\n`]* clipgen\b", path.read_text("utf-8"))]
