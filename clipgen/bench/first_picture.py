"""Times the first picture: `python -m clipgen.bench.first_picture` prints cold and warm seconds beside plain diffusers.

Cold: a new process from command line to finished file. Warm: one more picture of a loaded model. The peer is a bare
script that imports diffusers' pipeline, loads the same folder and draws with the same seed, steps and scheduler. The
arms take turns, so that a drifting machine touches both; medians and ranges are printed, and the ratio of medians.
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

from clipgen.bench.timing import in_turn

PROMPT = "a fox in snow"
PEER = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
image = pipe(sys.argv[2], num_inference_steps=int(sys.argv[3]), guidance_scale=float(sys.argv[4]),
             generator=torch.Generator().manual_seed(1)).images[0]
image.save(sys.argv[5])
"""


def measure(rounds: int) -> str:
    """Returns the report: a line for each arm. Each cold arm starts `rounds` processes."""
    from clipgen.models.find import BUNDLED
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.settings.settings import Settings

    pipe = Pipeline.from_pretrained("storybook")
    steps, scale = pipe.defaults["steps"], pipe.defaults["guidance_scale"]
    with tempfile.TemporaryDirectory() as folder:
        clipgen = [sys.executable, "-m", "clipgen"]
        peer = [
            sys.executable,
            "-c",
            PEER,
            str(BUNDLED["storybook"]),
            PROMPT,
            str(steps),
            str(scale),
            f"{folder}/peer.png",
        ]
        cold: dict[str, Callable[[], object]] = {
            "clipgen --help, new process": lambda: _run([*clipgen, "--help"]),
            "cold picture, clipgen": lambda: _run(
                [*clipgen, PROMPT, "--seed", "1", "-q", "--no-history", "-o", folder]
            ),
            "cold picture, diffusers": lambda: _run(peer),
        }
        taken = in_turn(cold, rounds)
    settings = Settings(prompt=PROMPT, seed=1)
    pipe.run(settings)
    taken |= in_turn({f"warm picture, clipgen ({steps} steps)": lambda: pipe.run(settings)}, max(5, rounds))
    seconds = {name: [clock.wall for clock in clocks] for name, clocks in taken.items()}
    lines = [
        f"{name:34} {median(s):6.2f} s   ({min(s):.2f} to {max(s):.2f}, {len(s)} runs)" for name, s in seconds.items()
    ]
    ratio = median(seconds["cold picture, clipgen"]) / median(seconds["cold picture, diffusers"])
    return "\n".join([*lines, f"cold picture, clipgen / diffusers  {ratio:6.2f}", f"cores {os.cpu_count()}"])


def _run(command: Sequence[str]) -> None:
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path.home(), env=quiet
    )


def main() -> None:
    """Parses the command line and prints the report."""
    parser = argparse.ArgumentParser(prog="python -m clipgen.bench.first_picture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="new processes of each cold arm")
    print(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
