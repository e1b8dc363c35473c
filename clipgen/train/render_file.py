"""The file of rendered scenes: appended to in the order of their seeds, so rendering can stop and continue anywhere."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from clipgen.world.concepts import drawn_hash
from clipgen.world.render import render
from clipgen.world.scene import Mix, sample_scene

Say = Callable[[str], None]
FEWEST = 512  # images that are rendered even if they take longer
SHARE = 0.2  # of a stage's minutes that rendering takes at most
SAMPLE = 32  # images rendered to measure how long one takes
CHUNK = 16  # images per task of a worker process
SAY_EVERY = 15.0  # seconds between two progress lines


class RenderFile:
    """A folder of renders: renders.u8 holds whole images one after another, renders.json says of which world.

    A larger count only adds images. A file of another world (size, mix, first seed, drawings) is started again.
    """

    def __init__(self, folder: Path, *, mix: Mix, size: int, first_seed: int = 0) -> None:
        self.folder, self.mix, self.size, self.first_seed = folder, mix, size, first_seed
        self.pixels, description = folder / "renders.u8", folder / "renders.json"
        self.image_bytes = size * size * 3
        facts = {"size": size, "first_seed": first_seed, "mix": asdict(mix), "concepts": drawn_hash(mix.names)}
        facts = json.loads(json.dumps(facts))
        folder.mkdir(parents=True, exist_ok=True)
        if not description.exists() or json.loads(description.read_text()) != facts:
            self.pixels.unlink(missing_ok=True)
            description.write_text(json.dumps(facts))

    def __len__(self) -> int:
        return self.pixels.stat().st_size // self.image_bytes if self.pixels.exists() else 0

    def fill(
        self, count: int, *, processes: int = 1, minutes: float = float("inf"), say: Say = lambda line: None
    ) -> None:
        """Renders until there are `count` images, for at most SHARE of `minutes` but at least FEWEST images.

        `say` gets the size and the time before rendering starts, then progress lines.
        """
        done, limit = len(self), 60 * SHARE * minutes
        if done >= count:
            return
        per_image = self._seconds(min(SAMPLE, count - done)) / processes
        count = int(min(count, max(FEWEST, done + limit / per_image)))
        if done < count:
            say(
                f"Rendering {count - done:,} scenes of {self.size} x {self.size} pixels into '{self.folder}': "
                f"{(count - done) * self.image_bytes / 1e9:.1f} GB, about {(count - done) * per_image / 60:.0f} min"
            )
            self._append(range(self.first_seed + done, self.first_seed + count), processes, say, limit)

    def _seconds(self, count: int) -> float:
        """Returns the seconds that one image takes in one process, measured on `count` of them."""
        started = time.monotonic()
        for seed in range(count):
            _rendered(seed, self.mix, self.size)
        return (time.monotonic() - started) / count

    def _append(self, seeds: range, processes: int, say: Say, limit: float) -> None:
        """Appends the renders of some seeds; after `limit` seconds it stops once there are FEWEST images."""
        done, total = len(self), len(self) + len(seeds)
        started = said = time.monotonic()
        with self.pixels.open("ab") as file, _workers(processes, self.mix, self.size, seeds) as images:
            file.truncate(done * self.image_bytes)  # the last image may be incomplete
            for image in images:
                file.write(image)
                done, now = done + 1, time.monotonic()
                if now > said + SAY_EVERY:
                    said = now
                    say(f"rendered {done:,} of {total:,} scenes")
                if now > started + limit and done >= FEWEST:
                    break


@contextmanager
def _workers(processes: int, mix: Mix, size: int, seeds: range) -> Iterator[Iterator[bytes]]:
    """Yields the images of seeds in order, rendered by worker processes that end with the block, Ctrl-C included."""
    draw = partial(_rendered, mix=mix, size=size)
    if processes == 1:
        yield map(draw, seeds)
        return
    # Ctrl-C goes to the parent alone, which ends the workers.
    with multiprocessing.get_context("spawn").Pool(processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield pool.imap(draw, seeds, chunksize=CHUNK)


def _rendered(seed: int, mix: Mix, size: int) -> bytes:
    return render(sample_scene(seed, mix), size).tobytes()
