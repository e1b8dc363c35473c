"""Measures clipgen on a CUDA card against diffusers, with random weights, and runs the tests that need a card.

For each model of clipgen.bench.random_models: the seconds per image of diffusers and of clipgen, with and without CLIP
guidance, their ratios, the peak of memory, and the difference of the images.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from clipgen.bench.timing import Ratio, describe_machine, ratio, time_alternating

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clipgen.bench.random_models import RandomModel
    from clipgen.pipeline.pipeline import Pipeline

PROMPT, IMAGE_SEED = "a fox in snow", 1
TINY_SIZE = 64
DIFFUSERS, CLIPGEN, AGAIN, GUIDED = "diffusers", "clipgen", "clipgen, again", "clipgen, guided"
COLUMNS = ("model", "variant", "seconds", "time / diffusers", "peak GiB", "image difference")
CUDA_TESTS = Path(__file__).parents[2] / "tests" / "test_cuda.py"
GIB = 2**30


@dataclass(frozen=True)
class GpuRow:
    """Results of one variant of one model.

    `difference` is the mean absolute difference of its image to that of diffusers, 0 to 1; None for guided images,
    which differ on purpose. `peak` is the peak of the allocated memory in bytes, None on a CPU.
    """

    model: str
    variant: str
    seconds: float
    relative: Ratio
    peak: int | None
    difference: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of COLUMNS."""
        peak = "" if self.peak is None else f"{self.peak / GIB:.1f}"
        difference = "" if self.difference is None else f"{self.difference:.5f}"
        return self.model, self.variant, f"{self.seconds:.2f}", str(self.relative), peak, difference


def measure(model: RandomModel, device: torch.device, *, steps: int, rounds: int, tiny: bool) -> list[GpuRow]:
    """Builds one model and times its variants in turns; the first image of each is not timed."""
    import torch

    from clipgen.bench.random_models import on_device

    dtype = model.dtype if device.type == "cuda" else torch.float32
    with on_device(device, dtype):
        reference = model.build(tiny)
    pipe = make_pipeline(reference, device, dtype, tiny=tiny)
    calls = make_calls(model, reference, pipe, steps, TINY_SIZE if tiny else model.size)
    images: dict[str, Tensor] = {}
    peaks: dict[str, int | None] = {}
    for name, call in calls.items():
        images[name], peaks[name] = _with_peak(call, device)
    # An image on the CPU is complete, so that no call has to wait for the device.
    timings = time_alternating(calls, rounds)
    seconds = {name: [timing.wall for timing in timings[name]] for name in calls}
    return [
        GpuRow(
            model.name,
            name,
            median(seconds[name]),
            ratio(seconds[name], seconds[DIFFUSERS]),
            peaks[name],
            None if name == GUIDED else float((images[name] - images[DIFFUSERS]).abs().mean()),
        )
        for name in calls
    ]


def make_pipeline(reference: Any, device: torch.device, dtype: torch.dtype, *, tiny: bool) -> Pipeline:
    """Returns a clipgen pipeline on the networks of a diffusers pipeline, with a CLIP of random weights."""
    import torch

    from clipgen.bench.random_models import clip, clip_tokenizer, on_device
    from clipgen.clip.encoder import ClipEncoder
    from clipgen.clip.score import Scorer, read_captions
    from clipgen.families import family_from_pipeline
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Origin

    with on_device(device, torch.float32):
        clip_model = clip(tiny=tiny)
    for network in (clip_model, *reference.components.values()):
        if isinstance(network, torch.nn.Module):
            network.requires_grad_(False)
    scorer = Scorer(ClipEncoder("random", clip_model, clip_tokenizer(), {}), read_captions())
    family = family_from_pipeline(reference)
    origin = Origin("random", family.name, str(device), str(dtype).removeprefix("torch."), lambda: None)
    return Pipeline(family, origin, device, {}, scorer)


def make_calls(
    model: RandomModel, reference: Any, pipe: Pipeline, steps: int, size: int
) -> dict[str, Callable[[], Tensor]]:
    """Returns the variants by name; each draws the same seed and returns the image [3, H, W] in [0, 1] on the CPU."""
    import torch

    from clipgen.settings.settings import Settings

    shared: dict[str, Any] = {"width": size, "height": size, "guidance_scale": model.guidance_scale}
    settings = Settings(PROMPT, seed=IMAGE_SEED, steps=steps, guard="off", **shared)
    reference.set_progress_bar_config(disable=True)

    def diffusers() -> Tensor:
        generator = torch.Generator().manual_seed(IMAGE_SEED)
        images = reference(PROMPT, num_inference_steps=steps, generator=generator, output_type="pt", **shared).images
        image: Tensor = images[0].float().cpu()
        return image

    def clipgen(guidance: str = "off") -> Tensor:
        return pipe.run(settings.replace(guidance=guidance))[0].pixels

    return {DIFFUSERS: diffusers, CLIPGEN: clipgen, AGAIN: clipgen, GUIDED: lambda: clipgen("clip")}


def _with_peak(call: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, int | None]:
    """Returns the result of a call and the peak of the memory that it allocated on a CUDA device."""
    import torch

    if device.type != "cuda":
        return call(), None
    torch.cuda.reset_peak_memory_stats(device)
    return call(), torch.cuda.max_memory_allocated(device)


def run_cuda_tests() -> str:
    """Runs the tests that need a CUDA card, in a checkout, and returns the last line of pytest."""
    if not CUDA_TESTS.is_file():
        return "The tests that need a CUDA card are in the repository, not in this installation."
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CUDA_TESTS)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return lines[-1] if lines else "pytest printed nothing."


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and prints the report."""
    parser = argparse.ArgumentParser(prog="python -m clipgen.bench.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="no model is started after this time")
    parser.add_argument("--rounds", type=int, default=3, help="number of timed images per variant")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--tiny", action="store_true", help="tiny models, on the CPU if there is no card")
    options = parser.parse_args(arguments)

    import torch

    from clipgen.bench.random_models import MODELS
    from clipgen.device import is_out_of_memory, release_memory, set_library_switches

    if not (options.tiny or torch.cuda.is_available()):
        raise SystemExit("This machine has no CUDA card. Works: --tiny, which runs the script with tiny models.")
    set_library_switches()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    start = time.monotonic()
    print(f"{describe_machine()}; random weights, {options.steps} steps")
    print("  ".join(COLUMNS))
    for model in MODELS:
        if time.monotonic() - start > 60 * options.minutes:
            print(f"{model.name}: skipped, because {options.minutes:g} minutes are over")
            continue
        try:
            rows = measure(model, device, steps=options.steps, rounds=options.rounds, tiny=options.tiny)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            rows = []
            print(f"{model.name}: skipped, because it does not fit into the memory of {device}")
        release_memory(device)
        for row in rows:
            print("  ".join(row.cells), flush=True)
    print(run_cuda_tests())


if __name__ == "__main__":
    main()
