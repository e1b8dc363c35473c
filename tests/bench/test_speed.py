"""The speed benchmark on a tiny model: every arm draws, and the report says what it found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgen import ClipgenError, Pipeline, Settings
from clipgen.bench import speed
from clipgen.bench.peer import CommunityGuidance
from clipgen.bench.timing import Ratio


@pytest.fixture(scope="module")
def pipe(tiny_v: Path) -> Pipeline:
    return Pipeline.from_pretrained(str(tiny_v))


@pytest.fixture(scope="module")
def found(pipe: Pipeline) -> speed.Speed:
    return speed.measure(pipe, rounds=2, steps=4)


def test_every_arm_and_both_peers_are_in_the_table(found: speed.Speed) -> None:
    rows = [row[0] for row in speed.table(found)]
    assert rows == [*(name for name in speed.ARMS if name != speed.AGAIN), speed.PEER, "community, 1 cutout"]
    assert found.rows[0].wall == Ratio(1, 1, 1)
    assert found.steps == 4
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["arm"] == speed.OFF


def test_goals_and_noise_are_told(found: speed.Speed) -> None:
    def with_clip(by: float) -> speed.Speed:
        rows = [replace(row, processor=Ratio(by, by, by)) if row.arm == speed.OURS else row for row in found.rows]
        return replace(found, rows=tuple(rows), against_peer=Ratio(by / 4, 0, 9), noise=Ratio(by, 1, 2))

    assert with_clip(1.0).goals[0] == "clip / off 1.00, at most 1.5: pass"
    assert with_clip(1.0).goals[1].startswith("clip, own decoder / off ")
    assert with_clip(2.0).goals[-1] == "ours / community 0.50, at most 0.35: fail"
    with_clip(1.0).check()
    with pytest.raises(ClipgenError, match=r"^Too noisy: A/A 1\.20\. Close other programs and repeat\.$"):
        with_clip(1.2).check()


def test_the_usual_way_without_strength_is_the_plain_picture_and_with_it_is_not(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings("a fox", seed=2, steps=6, guidance="off").with_defaults(pipe.defaults)
    (plain,) = pipe.run(settings)
    scorer: Any = pipe.scorer
    peer = CommunityGuidance(
        pipe.family, scorer.encoder, (pipe.told(settings), pipe.told(settings, "negative_prompt")), settings
    )
    monkeypatch.setattr("clipgen.bench.peer.STRENGTH", 1e7)  # networks at random see little of one another
    guided = peer.draw(2)
    assert torch.equal(guided, peer.draw(2))
    assert not torch.allclose(guided[0], plain.pixels, atol=1e-3)
    monkeypatch.setattr("clipgen.bench.peer.STRENGTH", 0.0)
    assert torch.allclose(peer.draw(2)[0], plain.pixels, atol=1e-5)
