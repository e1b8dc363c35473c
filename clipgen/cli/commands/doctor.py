"""`clipgen doctor`: checks the installation and says how to fix each problem."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from clipgen.cli import config_file, layers, terminal_image
from clipgen.cli.output import Report
from clipgen.errors import ClipgenError
from clipgen.home import config_dir, config_path, data_dir, install_command

MINIMUM_FREE = 1_000_000_000  # bytes on the disk
TORCHVISION_OFFSET = 15  # torchvision 0.28 belongs to torch 2.13
# Measured with storybook on a CPU with AVX512-BF16: 0.61 of the time for 8 pictures, 0.72 for one.
FAST_DTYPE = (
    "this CPU computes in bfloat16; --dtype auto-fast uses it: 0.6 of the time for 8 pictures, pixels that differ by "
    "0.4 of 255 on average"
)
MARKS = {True: "ok", False: "PROBLEM"}


@dataclass(frozen=True)
class Finding:
    """The result of one check; `fix` is set if it is a problem."""

    topic: str
    text: str
    fix: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the check passed."""
        return self.fix is None


def doctor(
    report_: Annotated[
        bool, typer.Option("--report", metavar="", help="Leave out home folder and user name, for publication.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")] = False,
) -> None:
    """Check this installation and say how to fix problems.

    Checks torch, driver, device, memory, models, disk, terminal and configuration; exits with code 1 on problems.

    clipgen doctor --report > doctor.txt
    """
    with Report(json=json) as report:
        hide = _anonymous if report_ else str
        findings = [Finding(f.topic, hide(f.text), f.fix and hide(f.fix)) for check in CHECKS for f in check()]
        rows = [(MARKS[f.ok], f.topic, f.text) for f in findings]
        report.data = {"checks": [{"ok": f.ok, "topic": f.topic, "text": f.text, "fix": f.fix} for f in findings]}
        report.table(("", "", ""), rows)
        problems = [finding for finding in findings if not finding.ok]
        for problem in problems:
            report.result(f"fix\t{problem.topic}\t{problem.fix}")
        if problems:
            raise ClipgenError(f"{len(problems)} of {len(findings)} checks found a problem.")


def _anonymous(text: str) -> str:
    """Returns a text without the home folder and the user name."""
    import getpass

    text = text.replace(str(Path.home()), "~")
    return re.sub(rf"\b{re.escape(getpass.getuser())}\b", "USER", text)


def versions() -> Iterator[Finding]:
    """Yields the versions for a bug report."""
    from importlib.metadata import version

    names = ("clipgen", "torch", "diffusers", "transformers")
    text = ", ".join(f"{name} {version(name)}" for name in names)
    yield Finding("versions", f"{text}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")


def torchvision() -> Iterator[Finding]:
    """Yields whether an installed torchvision matches torch; if not, transformers and diffusers fail."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        vision = version("torchvision")
    except PackageNotFoundError:
        return
    torch = version("torch")
    if _matches(vision, torch):
        yield Finding("torchvision", f"{vision} matches torch {torch}")
    else:
        fix = "pip uninstall torchvision (clipgen does not need it)"
        yield Finding("torchvision", f"{vision} does not match torch {torch}, so models do not load", fix)


def _matches(vision: str, torch: str) -> bool:
    """Returns whether torchvision 0.N+build belongs to torch 2.(N - 15)+build."""
    (_, vision_minor, *_), (_, torch_minor, *_) = vision.split("."), torch.split(".")
    builds = [version.partition("+")[2] for version in (vision, torch)]
    return int(vision_minor) == int(torch_minor) + TORCHVISION_OFFSET and builds[0] == builds[1]


def device() -> Iterator[Finding]:
    """Yields whether torch's build matches the driver, then the device of `auto` and its free memory."""
    import torch

    from clipgen.device import cpu_computes_in_bfloat16, free_memory, pick_device

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if driver and not torch.version.cuda:
        yield Finding(
            "torch",
            f"{torch.__version__}, {build}, although there is an NVIDIA driver",
            "install a CUDA build: pytorch.org",
        )
    elif driver and not torch.cuda.is_available():
        fix = "update the NVIDIA driver, or install a torch for an older CUDA: pytorch.org"
        yield Finding("torch", f"{torch.__version__}, {build}, does not work with this driver", fix)
    else:
        yield Finding("torch", f"{torch.__version__}, {build}")
    automatic = pick_device("auto")
    free = free_memory(automatic)
    memory = "" if free is None else f", {free / 1e9:.1f} GB of memory free"
    yield Finding("device", f"{automatic}{memory}, {os.cpu_count()} CPU cores")
    if automatic.type == "cpu" and cpu_computes_in_bfloat16():
        yield Finding("dtype", FAST_DTYPE)


def models() -> Iterator[Finding]:
    """Yields whether the bundled model is unchanged, and the cache of downloaded models."""
    from huggingface_hub import constants

    from clipgen.models import find_model, list_models, verify

    try:
        count = verify(find_model("storybook"))
        yield Finding("storybook", f"{count} files unchanged")
    except ClipgenError as error:
        yield Finding("storybook", str(error), install_command(reinstall=True))
    count = sum(model.kind == "hub" for model in list_models())
    offline = ", offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    yield Finding("hub cache", f"{count} models in {constants.HF_HUB_CACHE}{offline}")


def disk() -> Iterator[Finding]:
    """Yields free space and write access of the current folder and of clipgen's data folder."""
    for topic, folder in (("pictures", Path.cwd()), ("history", data_dir())):
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(existing).free
        text = f"{folder}, {free / 1e9:.1f} GB free"
        if not os.access(existing, os.W_OK):
            yield Finding(
                topic, f"{folder} cannot be written", f"choose a folder with write access instead of {existing}"
            )
        elif free < MINIMUM_FREE:
            yield Finding(topic, text, "free some space on this disk")
        else:
            yield Finding(topic, text)


def terminal() -> Iterator[Finding]:
    """Yields how pictures are shown in this terminal."""
    terminal = sys.stdout.isatty() and sys.stderr.isatty()
    mode = terminal_image.choose("auto", os.environ, terminal=terminal, ask_da1=terminal_image.ask_terminal)
    why = "" if terminal else " (stdout or stderr is no terminal)"
    yield Finding("terminal", f"TERM {os.environ.get('TERM', 'unset')}, pictures: {mode}{why}")


def configuration() -> Iterator[Finding]:
    """Yields the files and variables that change defaults, and their errors."""
    try:
        environment, notes = layers.environment()
        file_layers = layers.files(Path.cwd())
        config_file.read_user()
    except ClipgenError as error:
        yield Finding("config", str(error), f"correct the value; your own file is {config_path()}")
        return
    names = [f"CLIPGEN_{name.upper()}" for name in environment.values] + [layer.name for layer in file_layers]
    yield Finding("config", ", ".join(names) or f"nothing set; {config_dir()}")
    for note in notes:
        yield Finding("config", note.message, "unset it, or use the name of the option with _ for -")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    versions,
    torchvision,
    device,
    models,
    disk,
    terminal,
    configuration,
)
