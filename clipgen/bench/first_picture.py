"""Times the first image: cold and warm seconds of clipgen, and cold seconds of a plain diffusers script.

Cold is a new process, from the command line to the finished file. Warm is another image from a loaded model. The
diffusers script imports the pipeline, loads the same folder and uses the same seed, steps and scheduler. The cold
variants alternate, so that a change of the machine's load affects both. The report prints medians, ranges and the
ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from clipgen.bench.timing import time_alternating

PROMPT = "a fox in snow"
HELP, COLD, DIFFUSERS = "clipgen --help, new process", "cold image, clipgen", "cold image, diffusers"
DIFFUSERS_SCRIPT = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
image = pipe(sys.argv[2], num_inference_steps=int(sys.argv[3]), guidance_scale=float(sys.argv[4]),
             generator=torch.Generator().manual_seed(1)).images[0]
image.save(sys.argv[5])
"""


def measure(rounds: int) -> str:
    """Runs every cold variant `rounds` times and the warm one at least five times; returns the report as text."""
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.settings.settings import Settings

    pipe = Pipeline.from_pretrained("storybook")
    steps, guidance_scale = pipe.defaults["steps"], pipe.defaults["guidance_scale"]
    with tempfile.TemporaryDirectory() as folder:
        timings = time_alternating(_cold_calls(folder, steps, guidance_scale), rounds)
    settings = Settings(prompt=PROMPT, seed=1)
    pipe.run(settings)  # not timed: the first call initialises torch's kernels
    warm = f"warm image, clipgen ({steps} steps)"
    timings |= time_alternating({warm: lambda: pipe.run(settings)}, max(5, rounds))
    seconds = {name: [timing.wall for timing in series] for name, series in timings.items()}
    lines = [
        f"{name:34} {median(s):6.2f} s   ({min(s):.2f} to {max(s):.2f}, {len(s)} runs)" for name, s in seconds.items()
    ]
    ratio = median(seconds[COLD]) / median(seconds[DIFFUSERS])
    return "\n".join([*lines, f"{'cold image, clipgen / diffusers':34} {ratio:6.2f}", f"cores {os.cpu_count()}"])


def _cold_calls(folder: str, steps: int, guidance_scale: float) -> dict[str, Callable[[], object]]:
    """Returns the calls that start a new process each; their images go to `folder`."""
    from clipgen.models.ids import BUNDLED

    clipgen = [sys.executable, "-m", "clipgen"]
    generate = [*clipgen, PROMPT, "--seed", "1", "-q", "--no-history", "-o", folder]
    arguments = [str(BUNDLED["storybook"]), PROMPT, str(steps), str(guidance_scale), f"{folder}/diffusers.png"]
    return {
        HELP: lambda: _run([*clipgen, "--help"]),
        COLD: lambda: _run(generate),
        DIFFUSERS: lambda: _run([sys.executable, "-c", DIFFUSERS_SCRIPT, *arguments]),
    }


def _run(command: Sequence[str]) -> None:
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path.home(), env=quiet
    )


def main() -> None:
    """Parses the command line and prints the report."""
    parser = argparse.ArgumentParser(prog="python -m clipgen.bench.first_picture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of new processes per cold variant")
    print(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
