"""How much longer guided pictures take, method by method, and against the usual way; `python -m clipgen.bench.speed`.

Same weights, seed, scheduler and steps for all; the arms take turns, and one of them runs against itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from clipgen.bench.timing import NOISE, Clock, Ratio, in_turn, machine, ratio
from clipgen.errors import ClipgenError
from clipgen.settings.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from clipgen.pipeline.pipeline import Pipeline

PROMPT = "a fox in snow"
OFF, AGAIN, PEER = "off", "off, again", "community, 4 cutouts"
OURS, DECODED = "clip", "clip, own decoder"
DEAREST, OF_PEER = 1.5, 0.35  # goals: guided over unguided, ours over the usual way
ARMS: dict[str, dict[str, Any]] = {
    OFF: {},
    AGAIN: {},
    OURS: {"guidance": "clip"},
    DECODED: {"guidance": "clip", "guide_decoder": "own"},
    "clip, 4 views, every step": {"guidance": "clip", "cutouts": 4, "guidance_every": 1, "guide_decoder": "own"},
    "clip, linear": {"guidance": "clip", "guide_decoder": "linear"},
    "clip through the denoiser": {"guidance": "clip", "through_unet": True},
    "pick of 8": {"guidance": "pick", "candidates": 8},
    "steer, 4 particles": {"guidance": "steer", "particles": 4, "eta": 1.0},
}


@dataclass(frozen=True)
class Row:
    """One arm: its median seconds, how they compare with no guidance, and what CLIP, its own judge, says of it."""

    arm: str
    seconds: float
    wall: Ratio
    processor: Ratio
    similarity: float


@dataclass(frozen=True)
class Speed:
    """A finished measurement; `noise` is how an arm compares with itself, `against_peer` ours with the usual way."""

    machine: str
    steps: int
    rows: tuple[Row, ...]
    noise: Ratio
    against_peer: Ratio

    def to_dict(self) -> dict[str, Any]:
        """Returns every field, JSON-safe."""
        return asdict(self)

    @property
    def goals(self) -> list[str]:
        """What was aimed at, and whether it was reached, by the seconds of the processor."""
        prices = {row.arm: row.processor.median for row in self.rows if row.arm in (OURS, DECODED)}
        return [
            *(
                f"{arm} / off {price:.2f}, at most {DEAREST:g}: {_reached(price <= DEAREST)}"
                for arm, price in prices.items()
            ),
            f"ours / community {self.against_peer.median:.2f}, at most {OF_PEER:g}: "
            f"{_reached(self.against_peer.median <= OF_PEER)}",
        ]

    def check(self) -> None:
        """Raises ClipgenError where one arm differs so much from itself that no goal can be judged."""
        if abs(self.noise.median - 1) > NOISE:
            raise ClipgenError(f"Too noisy: A/A {self.noise.median:.2f}. Close other programs and repeat.")


def measure(pipe: Pipeline, rounds: int, steps: int | None = None, arms: Sequence[str] = tuple(ARMS)) -> Speed:
    """Times one picture of each arm so many times, each after a first run that nobody times."""
    shared = Settings(PROMPT, seed=1, steps=steps, scheduler="ddim", guard="off").with_defaults(pipe.defaults)
    calls = {name: _drawing(pipe, shared.replace(**_known(pipe, ARMS[name]))) for name in arms}
    calls |= {f"community, {_views(cutouts)}": _community(pipe, shared, cutouts) for cutouts in (4, 1)}
    similarity = {name: _similarity(pipe, call()) for name, call in calls.items()}
    taken = in_turn(calls, rounds)
    return Speed(
        machine(),
        shared.steps or 0,
        tuple(_row(name, taken, similarity[name]) for name in calls if name != AGAIN),
        _against(taken, AGAIN, OFF),
        _against(taken, OURS, PEER),
    )


def _known(pipe: Pipeline, fields: dict[str, Any]) -> dict[str, Any]:
    """Returns an arm's fields for this model: its own decoder has one of two names."""
    from clipgen.guidance.latent_decoder import available_decoders

    own = "tiny" if "tiny" in available_decoders(pipe.family) else "full"
    return {name: own if value == "own" else value for name, value in fields.items()}


def _drawing(pipe: Pipeline, settings: Settings) -> Callable[[], Tensor]:
    return lambda: pipe.run(settings)[0].pixels[None]


def _community(pipe: Pipeline, settings: Settings, cutouts: int) -> Callable[[], Tensor]:
    from clipgen.bench.peer import CommunityGuidance

    assert pipe.scorer is not None, "speed is measured with a model that brings its CLIP"
    told = (pipe.told(settings), pipe.told(settings, "negative_prompt"))
    peer = CommunityGuidance(pipe.family, pipe.scorer.encoder, told, settings)
    return lambda: peer.draw(cutouts)


def _similarity(pipe: Pipeline, pixels: Tensor) -> float:
    assert pipe.scorer is not None
    return pipe.scorer.score(pixels, [PROMPT])[0].similarity


def _row(name: str, taken: dict[str, list[Clock]], similarity: float) -> Row:
    wall = ratio([clock.wall for clock in taken[name]], [clock.wall for clock in taken[OFF]])
    return Row(name, median(clock.wall for clock in taken[name]), wall, _against(taken, name, OFF), similarity)


def _against(taken: dict[str, list[Clock]], name: str, other: str) -> Ratio:
    return ratio([clock.processor for clock in taken[name]], [clock.processor for clock in taken[other]])


def _views(cutouts: int) -> str:
    return f"{cutouts} cutout{'s' * (cutouts > 1)}"


def _reached(passed: bool) -> str:
    return "pass" if passed else "fail"


COLUMNS = ("arm", "seconds", "times off", "by the processor", "similarity")


def table(speed: Speed) -> list[tuple[str, ...]]:
    """Returns the cells of COLUMNS, a row an arm."""
    return [
        (row.arm, f"{row.seconds:.2f}", str(row.wall), str(row.processor), f"{row.similarity:.3f}")
        for row in speed.rows
    ]


def main() -> None:
    """Parses the command line and prints the report."""
    from clipgen.pipeline.pipeline import Pipeline

    parser = argparse.ArgumentParser(prog="python -m clipgen.bench.speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each arm is timed")
    parser.add_argument("--steps", type=int, default=None, help="denoising steps; the model's own")
    given = parser.parse_args()
    speed = measure(Pipeline.from_pretrained("storybook"), given.rounds, given.steps)
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
