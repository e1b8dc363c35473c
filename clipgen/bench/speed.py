"""Measures the cost of each guidance method, relative to no guidance and to diffusers' community pipeline.

All variants use the same weights, seed, scheduler and steps. They alternate, and one variant runs twice (A/A), which
shows how noisy the machine is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from clipgen.bench.timing import MAX_NOISE, Ratio, Timing, describe_machine, ratio, time_alternating
from clipgen.errors import ClipgenError
from clipgen.settings.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from clipgen.pipeline.pipeline import Pipeline

PROMPT = "a fox in snow"
OFF, OFF_AGAIN, COMMUNITY = "off", "off, again", "community, 4 cutouts"
CLIP, CLIP_DECODER = "clip", "clip, own decoder"
MAX_COST, MAX_COMMUNITY_RATIO = 1.5, 0.35  # goals: guided / unguided, clipgen / community pipeline
VARIANTS: dict[str, dict[str, Any]] = {  # name -> Settings fields; "own" is the model's tiny or full decoder
    OFF: {},
    OFF_AGAIN: {},
    CLIP: {"guidance": "clip"},
    CLIP_DECODER: {"guidance": "clip", "guide_decoder": "own"},
    "clip, 4 views, every step": {"guidance": "clip", "cutouts": 4, "guidance_every": 1, "guide_decoder": "own"},
    "clip, linear": {"guidance": "clip", "guide_decoder": "linear"},
    "clip through the denoiser": {"guidance": "clip", "through_unet": True},
    "pick of 8": {"guidance": "pick", "candidates": 8},
    "steer, 4 particles": {"guidance": "steer", "particles": 4, "eta": 1.0},
}


@dataclass(frozen=True)
class SpeedRow:
    """Results of one variant: median seconds, wall and CPU time relative to no guidance, similarity of its image.

    `similarity` is the cosine of the CLIP that guides.
    """

    variant: str
    seconds: float
    wall: Ratio
    cpu: Ratio
    similarity: float


@dataclass(frozen=True)
class Speed:
    """A finished measurement.

    `noise` is the CPU time of a variant relative to itself, `community` that of clipgen's CLIP guidance relative to
    the community pipeline.
    """

    machine: str
    steps: int
    rows: tuple[SpeedRow, ...]
    noise: Ratio
    community: Ratio

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as JSON-serialisable values."""
        return asdict(self)

    @property
    def goals(self) -> list[str]:
        """One line per goal, with `pass` or `fail`, by CPU time."""
        costs = {row.variant: row.cpu.median for row in self.rows if row.variant in (CLIP, CLIP_DECODER)}
        return [
            *(_goal(f"{variant} / off", cost, MAX_COST) for variant, cost in costs.items()),
            _goal("clipgen / community", self.community.median, MAX_COMMUNITY_RATIO),
        ]

    def check(self) -> None:
        """Raises ClipgenError if the two runs of one variant differ too much to judge the goals."""
        if abs(self.noise.median - 1) > MAX_NOISE:
            raise ClipgenError(f"Too noisy: A/A {self.noise.median:.2f}. Close other programs and repeat.")


def measure(pipe: Pipeline, rounds: int, steps: int | None = None, variants: Sequence[str] = tuple(VARIANTS)) -> Speed:
    """Times one image per variant and round; a first run of each variant is not timed."""
    shared = Settings(PROMPT, seed=1, steps=steps, scheduler="ddim", guard="off").with_defaults(pipe.defaults)
    calls = {name: _generation(pipe, shared.replace(**_fields(pipe, VARIANTS[name]))) for name in variants}
    calls |= {f"community, {_cutouts(count)}": _community(pipe, shared, count) for count in (4, 1)}
    similarities = {name: _similarity(pipe, call()) for name, call in calls.items()}
    timings = time_alternating(calls, rounds)
    return Speed(
        describe_machine(),
        shared.steps or 0,
        tuple(_row(name, timings, similarities[name]) for name in calls if name != OFF_AGAIN),
        _cpu_ratio(timings, OFF_AGAIN, OFF),
        _cpu_ratio(timings, CLIP, COMMUNITY),
    )


def _fields(pipe: Pipeline, fields: dict[str, Any]) -> dict[str, Any]:
    """Replaces "own" by the name of the model's decoder: tiny if it has one, else full."""
    from clipgen.guidance.latent_decoder import available_decoders

    own = "tiny" if "tiny" in available_decoders(pipe.family) else "full"
    return {name: own if value == "own" else value for name, value in fields.items()}


def _generation(pipe: Pipeline, settings: Settings) -> Callable[[], Tensor]:
    return lambda: pipe.run(settings)[0].pixels[None]


def _community(pipe: Pipeline, settings: Settings, cutouts: int) -> Callable[[], Tensor]:
    from clipgen.bench.community import CommunityGuidance

    assert pipe.scorer is not None, "speed is measured with a model that brings its CLIP"
    conditioning = (pipe.encode_prompt(settings), pipe.encode_prompt(settings, "negative_prompt"))
    community = CommunityGuidance(pipe.family, pipe.scorer.encoder, conditioning, settings)
    return lambda: community.generate(cutouts)


def _similarity(pipe: Pipeline, pixels: Tensor) -> float:
    assert pipe.scorer is not None
    return pipe.scorer.score(pixels, [PROMPT])[0].similarity


def _row(name: str, timings: dict[str, list[Timing]], similarity: float) -> SpeedRow:
    seconds = [timing.wall for timing in timings[name]]
    wall = ratio(seconds, [timing.wall for timing in timings[OFF]])
    return SpeedRow(name, median(seconds), wall, _cpu_ratio(timings, name, OFF), similarity)


def _cpu_ratio(timings: dict[str, list[Timing]], name: str, baseline: str) -> Ratio:
    return ratio([timing.cpu for timing in timings[name]], [timing.cpu for timing in timings[baseline]])


def _cutouts(count: int) -> str:
    return f"{count} cutout{'s' * (count > 1)}"


def _goal(name: str, value: float, limit: float) -> str:
    return f"{name} {value:.2f}, at most {limit:g}: {'pass' if value <= limit else 'fail'}"


COLUMNS = ("variant", "seconds", "wall time / off", "CPU time / off", "similarity")


def table(speed: Speed) -> list[tuple[str, ...]]:
    """Returns the cells of COLUMNS, one tuple per variant."""
    return [
        (row.variant, f"{row.seconds:.2f}", str(row.wall), str(row.cpu), f"{row.similarity:.3f}") for row in speed.rows
    ]


def main() -> None:
    """Parses the command line and prints the report."""
    from clipgen.pipeline.pipeline import Pipeline

    parser = argparse.ArgumentParser(prog="python -m clipgen.bench.speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of timed images per variant")
    parser.add_argument("--steps", type=int, default=None, help="denoising steps; default: the model's")
    options = parser.parse_args()
    speed = measure(Pipeline.from_pretrained("storybook"), options.rounds, options.steps)
    widths = [max(map(len, column)) for column in zip(COLUMNS, *table(speed), strict=True)]
    for cells in (COLUMNS, *table(speed)):
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    print(speed.machine)
    try:
        speed.check()
    except ClipgenError as error:
        raise SystemExit(str(error)) from None
    print(*speed.goals, sep="\n")


if __name__ == "__main__":
    main()
