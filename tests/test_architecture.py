"""Checks the source: the order of the layers, light modules without torch, and calls that are forbidden."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"clipgen": ROOT / "clipgen", "clipgen.presets": ROOT / "presets", "clipgen.ui": ROOT / "ui"}

# Each layer may import only those below it in this list; packages of one layer do not import one another.
LAYERS = (
    {"clipgen", "__main__"},
    {"cli"},
    {"ui"},
    {"batch", "bench", "compare"},
    {"train"},
    {"gallery", "report"},
    {"pipeline", "attach"},
    {"guidance"},
    {"text", "decode"},
    {"families"},
    {"models"},
    {"captioning"},
    {"clip"},
    {"world", "history", "image_file"},
    {"settings", "device"},
    {"sampling", "home", "presets"},
    {"errors", "hashing", "atomic", "pixels"},
)
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer}

HEAVY = {"torch", "torchvision", "transformers", "diffusers", "accelerate", "gradio"}
MEDIUM = {"numpy", "PIL"}
LIGHT_PACKAGES = {
    "clipgen",
    "__main__",
    "atomic",
    "cli",
    "compare",
    "errors",
    "hashing",
    "history",
    "home",
    "image_file",
    "presets",
    "report",
    "settings",
}
LIGHT_MODULES = {  # of packages whose other modules need torch
    "clipgen.pipeline",
    "clipgen.pipeline.inputs",
    "clipgen.sampling",
    "clipgen.sampling.cancellation",
    "clipgen.sampling.schedulers",
}
MOST_TOP_MODULES = 14
PROJECT_TESTS = {
    "architecture",
    "cuda",
    "init",
    "packaging",
    "readme",
    "support_matrix",
}  # of the repository as a whole
DISTRIBUTIONS = {"PIL": "pillow"}

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
FORBIDDEN_ATTRIBUTES = {
    ("torch", "load"),
    ("torch", "save"),
    ("torch", "hub"),
    ("ast", "literal_eval"),
    ("os", "system"),
    ("os", "popen"),
    ("accelerator", "load_state"),
    ("accelerator", "save_state"),
}
FORBIDDEN_WORDS = {"trust_remote_code", "custom_pipeline", "allow_pickle", "_attn_implementation_internal"}
FORBIDDEN_SWITCHES = {"shell", "share"}
LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def module_name(path: Path) -> str:
    for root, folder in FOLDERS.items():
        if path.is_relative_to(folder):
            parts = [root, *path.relative_to(folder).with_suffix("").parts]
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    raise ValueError(path)


SOURCES = {module_name(path): path for folder in FOLDERS.values() for path in sorted(folder.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in SOURCES.items()}


def package(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def is_light(module: str) -> bool:
    return package(module) in LIGHT_PACKAGES or module in LIGHT_MODULES


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def statements(node: ast.AST, *, top_only: bool) -> Iterator[ast.AST]:
    """Yields all nodes below `node`; with `top_only` only those that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if top_only and (isinstance(child, LATER) or is_type_checking(child)):
            continue
        yield child
        yield from statements(child, top_only=top_only)


def absolute(module: str, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    is_package = SOURCES[module].name == "__init__.py"
    base = module.split(".")
    base = base[: len(base) - node.level + is_package]
    return ".".join([*base, node.module] if node.module else base)


def imports(module: str, *, top_only: bool = False) -> list[str]:
    """Returns every module that `module` imports, clipgen's own down to the submodule."""
    names: list[str] = []
    for node in statements(TREES[module], top_only=top_only):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = absolute(module, node)
            names += [name if (name := f"{source}.{alias.name}") in SOURCES else source for alias in node.names]
    return names


def own(module: str, *, top_only: bool = False) -> set[str]:
    return {name for name in imports(module, top_only=top_only) if name.split(".")[0] == "clipgen"}


def foreign(module: str, *, top_only: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imports(module, top_only=top_only)} - {"clipgen"} - sys.stdlib_module_names


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    return {re.split(r"[<>=!~; ]", line)[0] for line in lines}


def distributions(module: str) -> set[str]:
    return {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in foreign(module)}


def test_every_module_has_a_layer() -> None:
    assert {package(module) for module in SOURCES} <= RANK.keys()


def test_imports_go_down_the_layers() -> None:
    upward = [
        f"{module} imports {name}"
        for module in SOURCES
        for name in sorted(own(module))
        if package(name) != package(module) and RANK[package(name)] <= RANK[package(module)]
    ]
    assert not upward


def test_contributing_lists_the_same_layers() -> None:
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text("utf-8")
    block = re.search(r"^    cli -> .*\n(?:^    .*\n)*", text, re.MULTILINE)
    assert block
    listed = [{name.strip() for name in layer.split(",")} for layer in block[0].split("->")]
    assert listed == list(LAYERS[1:])


def test_the_top_of_the_package_is_short() -> None:
    assert len(list((ROOT / "clipgen").glob("*.py"))) <= MOST_TOP_MODULES


def test_every_test_file_mirrors_a_module_or_package() -> None:
    """`tests/a/test_b.py` and `tests/a/test_b_more.py` test `clipgen/a/b.py`; `tests/a/test_a.py` tests the package."""
    strays = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        parts = path.parent.relative_to(ROOT / "tests").parts
        folder = ROOT.joinpath(*parts) if parts[:1] == ("ui",) else ROOT.joinpath("clipgen", *parts)
        names = {each.stem for each in folder.glob("*")} | ({parts[-1]} if parts else PROJECT_TESTS)
        subject = path.stem.removeprefix("test_")
        if not any(f"{subject}_".startswith(f"{name}_") for name in names):
            strays.append(path)
    assert not strays


def test_there_is_no_import_circle() -> None:
    graph = {module: own(module) - {module} for module in SOURCES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_only_the_public_names_are_imported_by_string() -> None:
    dynamic = {
        module for module in SOURCES if "importlib" in imports(module) and "import_module" in ast.dump(TREES[module])
    }
    assert dynamic <= {"clipgen"}


def test_light_modules_import_nothing_heavy() -> None:
    """Neither directly nor through another module: the top level of a light module imports only light modules."""
    light = [module for module in SOURCES if is_light(module)]
    for module in light:
        assert not foreign(module, top_only=True) & HEAVY, module
        assert not {name for name in own(module, top_only=True) if not is_light(name)}, module
        if package(module) != "image_file":
            assert not foreign(module, top_only=True) & MEDIUM, module


def test_light_modules_leave_torch_out_of_a_fresh_process() -> None:
    light = sorted(module for module in SOURCES if is_light(module) and not module.endswith("__main__"))
    code = f"import sys, {', '.join(light)}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == []


def test_third_party_imports_are_declared() -> None:
    undeclared = {module: distributions(module) - declared() for module in SOURCES}
    assert not {module: names for module, names in undeclared.items() if names}


def test_every_declared_dependency_is_imported() -> None:
    assert declared() == set().union(*(distributions(module) for module in SOURCES))


def dangers(tree: ast.Module) -> Iterator[str]:
    """Yields every call, attribute and argument that could run code that came as data."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_CALLS:
                yield f"{node.lineno}: {name}()"
            case ast.Attribute(value=ast.Name(id=name), attr=attr) if (name, attr) in FORBIDDEN_ATTRIBUTES:
                yield f"{node.lineno}: {name}.{attr}"
            case ast.keyword(arg=str(name)) if name in FORBIDDEN_WORDS:
                yield f"{node.value.lineno}: {name}="
            case ast.keyword(arg=str(name), value=ast.Constant(value=True)) if name in FORBIDDEN_SWITCHES:
                yield f"{node.value.lineno}: {name}=True"
            case ast.Dict(keys=keys):
                words = {str(key.value) for key in keys if isinstance(key, ast.Constant)} & FORBIDDEN_WORDS
                yield from (f"{node.lineno}: {word!r}:" for word in sorted(words))


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_runs_code_from_data(module: str) -> None:
    assert not list(dangers(TREES[module]))
    assert not {name.split(".")[0] for name in imports(module)} & FORBIDDEN_IMPORTS


def test_dangerous_calls_are_recognised() -> None:
    calls = [
        "eval(x)",
        "torch.load(f)",
        "f(trust_remote_code=True)",
        "g(**{'custom_pipeline': 1})",
        "run(a, shell=True)",
    ]
    assert all(len(list(dangers(ast.parse(call)))) == 1 for call in calls)
    assert not list(dangers(ast.parse("model.eval(); re.compile(x); run(a, shell=False)")))


def test_no_file_uses_the_old_vocabulary() -> None:
    """Names and texts use the field's terms; the old entries of the training log stay as they were."""
    pattern = re.compile(r"(?<![a-z])(told|heed|heeding)(?![a-z])", re.IGNORECASE)
    text_files = {".py", ".md", ".js", ".css", ".html", ".toml"}
    paths = [path for folder in ("clipgen", "ui", "tests") for path in sorted((ROOT / folder).rglob("*"))]
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        if path.suffix in text_files and path.name != "LOG.md" and path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not lines
