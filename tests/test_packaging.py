"""Holds pyproject.toml against the tree: packages, data, floors, public names, one version."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import clipgen

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
DATA = [(package, pattern) for package, patterns in SETUPTOOLS["package-data"].items() for pattern in patterns]
REQUIREMENTS = [
    Requirement(line)
    for lines in [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    for line in lines
]

# The lowest version that has no known hole, or the behaviour we lean on. A floor rises, it never falls.
FLOORS = {
    "torch": "2.11",  # CVE-2025-32434, CVE-2026-24747, CVE-2026-4538
    "diffusers": "0.42.1",  # GHSA-4prv-5hj7-c2xr, CVE-2026-44513
    "transformers": "5.6",  # CVE-2026-4372, CVE-2026-5241, CVE-2026-1839; flattened CLIP towers
    "accelerate": "1.15",
    "safetensors": "0.8",
    "tokenizers": "0.23.1",
    "huggingface-hub": "1.32",
    "pillow": "12.3",  # CVE-2026-55380, CVE-2026-40192
    "numpy": "2",
    "typer": "0.29",
    "rich": "15",
    "platformdirs": "4",
    "gradio": "6.17",  # 6.17: pages load nothing from elsewhere
    "starlette": "0.49.1",  # CVE-2025-62727
}
CAPS = {
    "torch": "2.14",
    "diffusers": "0.43",
    "transformers": "6",
    "accelerate": "2",
    "pillow": "13",
    "numpy": "3",
    "typer": "1",
    "gradio": "7",
}
# They replace torch by another build, break with transformers 5, or run code from the network.
NEVER = {
    "torchvision",
    "torchaudio",
    "spandrel",
    "open-clip-torch",
    "torchmetrics",
    "kernels",
    "invisible-watermark",
    "daam",
}
MEGABYTE = 1_000_000


def test_the_packages_are_the_folders() -> None:
    inside = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "clipgen").rglob("__init__.py")}
    mapped = [path for name in ("presets", "ui") for path in (ROOT / name).rglob("__init__.py")]
    beside = {".".join(("clipgen", *path.parent.relative_to(ROOT).parts)) for path in mapped}
    assert SETUPTOOLS["packages"] == sorted(inside | beside)
    assert SETUPTOOLS["package-dir"] == {f"clipgen.{name}": name for name in ("presets", "ui")}


def test_every_python_file_is_in_a_package() -> None:
    lost = [path for path in (ROOT / "clipgen").rglob("*.py") if not (path.parent / "__init__.py").exists()]
    assert not lost


def data(package: str, pattern: str) -> set[Path]:
    folder = ROOT / SETUPTOOLS["package-dir"].get(package, package.replace(".", "/"))
    return {path for path in folder.glob(pattern) if path.is_file() and path.suffix not in {".py", ".pyc"}}


@pytest.mark.parametrize(("package", "pattern"), DATA)
def test_package_data_exists(package: str, pattern: str) -> None:
    assert data(package, pattern)


def test_no_data_file_is_left_behind() -> None:
    """Every file below clipgen/ that is not Python is named by package-data."""
    shipped = set().union(*(data(package, pattern) for package, pattern in DATA))
    found = data("clipgen", "**/*") | data("clipgen.presets", "**/*") | data("clipgen.ui", "**/*")
    assert found <= shipped


def test_floors_are_not_lowered() -> None:
    floors = {
        r.name: max(Version(s.version) for s in r.specifier if s.operator == ">=")
        for r in REQUIREMENTS
        if r.name != "clipgen"
    }
    assert not {name for name, floor in FLOORS.items() if floors[name] < Version(floor)}


def test_caps_stand_where_the_next_version_is_untried() -> None:
    for name, cap in CAPS.items():
        requirement = next(r for r in REQUIREMENTS if r.name == name)
        assert f"<{cap}" in str(requirement.specifier), name


def test_packages_that_break_torch_are_never_asked_for() -> None:
    assert not {r.name.lower().replace("_", "-") for r in REQUIREMENTS} & NEVER


def test_all_lists_are_sorted_and_true() -> None:
    for path in [*(ROOT / "clipgen").rglob("*.py"), *(ROOT / "ui").rglob("*.py"), ROOT / "presets" / "__init__.py"]:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
                assert list(names) == sorted(set(names)), path


def test_public_names_can_be_had() -> None:
    assert clipgen.__all__
    assert all(getattr(clipgen, name) is not None for name in clipgen.__all__)
    assert set(clipgen.__all__) <= set(dir(clipgen))


def test_the_version_is_written_once() -> None:
    version = PROJECT["project"]["version"]
    assert importlib.metadata.version("clipgen") == version
    literal = re.compile(rf"""["']{re.escape(version)}["']""")
    assert not [path for path in (ROOT / "clipgen").rglob("*.py") if literal.search(path.read_text("utf-8"))]


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / ".github" / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == PROJECT["project"]["version"]


def test_the_licence_is_there_in_full() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_hooks_are_local_and_ci_can_run() -> None:
    assert set(re.findall(r"repo: (\S+)", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"))) == {"local"}
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_storybook_fits_the_box() -> None:
    sizes = {path: path.stat().st_size for path in (ROOT / "clipgen" / "storybook").rglob("*") if path.is_file()}
    assert sizes
    assert max(sizes.values()) <= 48 * MEGABYTE
    assert sum(sizes.values()) <= 96 * MEGABYTE
