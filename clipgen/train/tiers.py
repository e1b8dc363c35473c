"""The two settings files of the one recipe: what a 2-core machine can do in hours, and one GPU in half an hour."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clipgen.train.loop import Budget
from clipgen.world.scene import Mix

STAGES = ("clip", "judge", "vae", "latent_head", "unet")


@dataclass(frozen=True)
class Tier:
    """Sizes and shares of a training: `side` in pixels, `renders` pictures of each of the two worlds, a budget a stage.

    `shares` splits the minutes of `clipgen train storybook` over the stages. CLIP and autoencoder learn from `wide`,
    the full mix of scenes; the denoiser from `narrow`, where single large things prevail.
    """

    side: int
    renders: int
    wide: Mix
    narrow: Mix
    shares: dict[str, float]
    budgets: dict[str, Budget]
    unet_channels: tuple[int, ...]

    def budget(self, stage: str, minutes: float) -> Budget:
        """Returns the budget of a stage with the minutes it may take."""
        return replace(self.budgets[stage], minutes=minutes)


ARTS = ("flat", "flat", "flat", "3d", "noto")  # CLIP and autoencoder know other drawings of the same things too
WIDE = Mix(tier=2, favourites=1.0, kinds=(0.6, 0.3, 0.1), arts=ARTS)
NARROW = Mix(
    tier=2, favourites=2.0, kinds=(0.75, 0.2, 0.05), several=0.25, coloured=0.25, plain=0.06, styled=0.08, timed=0.1,
    sized=0.05, looseness=0.5,
)  # fmt: skip
CLIP_BUDGET = Budget(1, 64, 1e-3, warmup=150, average=0.995, weight_decay=0.05, betas=(0.9, 0.98))

TIERS = {
    "cpu": Tier(
        side=256,
        renders=100_000,
        wide=WIDE,
        narrow=NARROW,
        shares={"clip": 0.15, "judge": 0.08, "vae": 0.2, "latent_head": 0.05, "unet": 0.52},
        budgets={
            "clip": CLIP_BUDGET,
            "judge": CLIP_BUDGET,
            "vae": Budget(1, 16, 1e-3, warmup=100, average=0.998, decay=0.65),
            "latent_head": Budget(1, 64, 1e-3, warmup=100, average=0.995),
            "unet": Budget(1, 20, 8e-4, warmup=200, average=0.9985, decay=0.4, evaluate_minutes=14),
        },
        unet_channels=(96, 192, 256),
    ),
    "gpu": Tier(
        side=256,
        renders=100_000,
        wide=replace(WIDE, tier=3, arts=("flat", "flat", "flat", "noto")),
        narrow=replace(NARROW, tier=3, styled=0.2),
        shares={"clip": 0.1, "judge": 0.05, "vae": 0.15, "latent_head": 0.05, "unet": 0.65},
        budgets={
            "clip": replace(CLIP_BUDGET, batch=1024, learning_rate=8e-4, warmup=300, average=0.998),
            "judge": replace(CLIP_BUDGET, batch=512, learning_rate=8e-4, warmup=300, average=0.998),
            "vae": Budget(1, 64, 8e-4, warmup=200, average=0.998),
            "latent_head": Budget(1, 256, 8e-4, warmup=200, average=0.998),
            "unet": Budget(1, 256, 5e-4, warmup=500, average=0.9995),
        },
        unet_channels=(96, 192, 256),
    ),
}
