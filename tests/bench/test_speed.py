"""The speed benchmark on a tiny model: every variant generates, and the report lists the results and goals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgen import ClipgenError, Pipeline, Settings
from clipgen.bench import speed
from clipgen.bench.community import CommunityGuidance
from clipgen.bench.timing import Ratio


@pytest.fixture(scope="module")
def pipe(tiny_v: Path) -> Pipeline:
    return Pipeline.from_pretrained(str(tiny_v))


@pytest.fixture(scope="module")
def result(pipe: Pipeline) -> speed.Speed:
    return speed.measure(pipe, rounds=2, steps=4)


def test_every_variant_and_both_community_pipelines_are_in_the_table(result: speed.Speed) -> None:
    rows = [row[0] for row in speed.table(result)]
    variants = [name for name in speed.VARIANTS if name != speed.OFF_AGAIN]
    assert rows == [*variants, speed.COMMUNITY, "community, 1 cutout"]
    assert result.rows[0].wall == Ratio(1, 1, 1)
    assert result.steps == 4
    assert json.loads(json.dumps(result.to_dict()))["rows"][0]["variant"] == speed.OFF


def test_goals_and_noise_are_reported(result: speed.Speed) -> None:
    def with_cost(cost: float) -> speed.Speed:
        rows = [replace(row, cpu=Ratio(cost, cost, cost)) if row.variant == speed.CLIP else row for row in result.rows]
        return replace(result, rows=tuple(rows), community=Ratio(cost / 4, 0, 9), noise=Ratio(cost, 1, 2))

    assert with_cost(1.0).goals[0] == "clip / off 1.00, at most 1.5: pass"
    assert with_cost(1.0).goals[1].startswith("clip, own decoder / off ")
    assert with_cost(2.0).goals[-1] == "clipgen / community 0.50, at most 0.35: fail"
    with_cost(1.0).check()
    with pytest.raises(ClipgenError, match=r"^Too noisy: A/A 1\.20\. Close other programs and repeat\.$"):
        with_cost(1.2).check()


def test_the_community_guidance_at_scale_zero_is_the_unguided_image(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings("a fox", seed=2, steps=6, guidance="off").with_defaults(pipe.defaults)
    (plain,) = pipe.run(settings)
    scorer: Any = pipe.scorer
    community = CommunityGuidance(
        pipe.family,
        scorer.encoder,
        (pipe.encode_prompt(settings), pipe.encode_prompt(settings, "negative_prompt")),
        settings,
    )
    monkeypatch.setattr("clipgen.bench.community.CLIP_GUIDANCE_SCALE", 1e7)  # gradients of random networks are small
    images = community.generate(2)
    assert torch.equal(images, community.generate(2))
    assert not torch.allclose(images[0], plain.pixels, atol=1e-3)
    monkeypatch.setattr("clipgen.bench.community.CLIP_GUIDANCE_SCALE", 0.0)
    assert torch.allclose(community.generate(2)[0], plain.pixels, atol=1e-5)
