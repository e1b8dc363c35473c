"""Compares pyproject.toml with the source: packages, data files, version bounds, public names, the version."""

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

# The lowest versions without known vulnerabilities and with the behaviour that clipgen needs; never lowered.
FLOORS = {
    "torch": "2.11",  # CVE-2025-32434, CVE-2026-24747, CVE-2026-4538
    "diffusers": "0.42.1",  # GHSA-4prv-5hj7-c2xr, CVE-2026-44513
    "transformers": "5.6",  # CVE-2026-4372, CVE-2026-5241, CVE-2026-1839; flattened CLIP models
    "accelerate": "1.15",
    "safetensors": "0.8",
    "peft": "0.21",
    "tokenizers": "0.23.1",
    "huggingface-hub": "1.32",
    "pillow": "12.3",  # CVE-2026-55380, CVE-2026-40192
    "numpy": "2",
    "typer": "0.29",
    "rich": "15",
    "platformdirs": "4",
    "tomlkit": "0.13",
    "gradio": "6.17",  # 6.17: pages load nothing from other hosts
    "starlette": "0.49.1",  # CVE-2025-62727
}
CAPS = {
    "torch": "2.14",
    "diffusers": "0.43",
    "transformers": "6",
    "accelerate": "2",
    "peft": "0.22",
    "pillow": "13",
    "numpy": "3",
    "typer": "1",
    "gradio": "7",
}
# These replace torch by another build, break with transformers 5, or run code from the network.
FORBIDDEN = {
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


def test_the_package_list_matches_the_folders() -> None:
    inside = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "clipgen").rglob("__init__.py")}
    mapped = [path for name in ("presets", "ui") for path in (ROOT / name).rglob("__init__.py")]
    top_level = {".".join(("clipgen", *path.parent.relative_to(ROOT).parts)) for path in mapped}
    assert SETUPTOOLS["packages"] == sorted(inside | top_level)
    assert SETUPTOOLS["package-dir"] == {f"clipgen.{name}": name for name in ("presets", "ui")}


def test_every_python_file_is_in_a_package() -> None:
    outside = [path for path in (ROOT / "clipgen").rglob("*.py") if not (path.parent / "__init__.py").exists()]
    assert not outside


def data(package: str, pattern: str) -> set[Path]:
    """Returns the data files of a package that match a pattern."""
    folder = ROOT / SETUPTOOLS["package-dir"].get(package, package.replace(".", "/"))
    return {path for path in folder.glob(pattern) if path.is_file() and path.suffix not in {".py", ".pyc"}}


@pytest.mark.parametrize(("package", "pattern"), DATA)
def test_package_data_exists(package: str, pattern: str) -> None:
    assert data(package, pattern)


def test_every_data_file_is_packaged() -> None:
    """Every file in a package that is not Python is listed in package-data."""
    packaged = set().union(*(data(package, pattern) for package, pattern in DATA))
    existing = data("clipgen", "**/*") | data("clipgen.presets", "**/*") | data("clipgen.ui", "**/*")
    assert existing <= packaged


def test_lower_bounds_are_not_lowered() -> None:
    floors = {
        r.name: max(Version(s.version) for s in r.specifier if s.operator == ">=")
        for r in REQUIREMENTS
        if r.name != "clipgen"
    }
    assert not {name for name, floor in FLOORS.items() if floors[name] < Version(floor)}


def test_upper_bounds_exclude_untested_versions() -> None:
    for name, cap in CAPS.items():
        requirement = next(r for r in REQUIREMENTS if r.name == name)
        assert f"<{cap}" in str(requirement.specifier), name


def test_forbidden_packages_are_not_required() -> None:
    assert not {r.name.lower().replace("_", "-") for r in REQUIREMENTS} & FORBIDDEN


def test_all_lists_are_sorted() -> None:
    for path in [*(ROOT / "clipgen").rglob("*.py"), *(ROOT / "ui").rglob("*.py"), ROOT / "presets" / "__init__.py"]:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
                assert list(names) == sorted(set(names)), path


def test_public_names_can_be_imported() -> None:
    assert clipgen.__all__
    assert all(getattr(clipgen, name) is not None for name in clipgen.__all__)
    assert set(clipgen.__all__) <= set(dir(clipgen))


def test_the_version_is_written_in_one_place() -> None:
    version = PROJECT["project"]["version"]
    assert importlib.metadata.version("clipgen") == version
    literal = re.compile(rf"""["']{re.escape(version)}["']""")
    assert not [path for path in (ROOT / "clipgen").rglob("*.py") if literal.search(path.read_text("utf-8"))]


def test_the_changelog_starts_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / ".github" / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == PROJECT["project"]["version"]


def test_the_licence_is_complete() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_hooks_are_local_and_ci_is_executable() -> None:
    assert set(re.findall(r"repo: (\S+)", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"))) == {"local"}
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_storybook_is_within_the_size_limits() -> None:
    sizes = {path: path.stat().st_size for path in (ROOT / "clipgen" / "storybook").rglob("*") if path.is_file()}
    assert sizes
    assert max(sizes.values()) <= 48 * MEGABYTE
    assert sum(sizes.values()) <= 96 * MEGABYTE
