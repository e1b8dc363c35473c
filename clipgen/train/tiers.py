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
    the full mix of scenes; the denoiser from `narrow`, where single large things that people ask for most prevail:
    they are learnt first, the rest when those are unmistakable. `first` are the things that the denoiser sees most of.
    """

    side: int
    renders: int
    wide: Mix
    narrow: Mix
    shares: dict[str, float]
    budgets: dict[str, Budget]
    unet_channels: tuple[int, ...]
    first: tuple[str, ...] = ()

    def budget(self, stage: str, minutes: float) -> Budget:
        """Returns the budget of a stage with the minutes it may take."""
        return replace(self.budgets[stage], minutes=minutes)


NARROW = Mix(
    tier=2, favourites=50.0, kinds=(0.82, 0.17, 0.01), several=0.35, coloured=0.15, plain=0.06, styled=0.06, timed=0.08,
    sized=0.05, looseness=0.25, drawings=1,
)  # fmt: skip

FIRST = (
    "fox", "cat", "dog", "rabbit", "panda", "bear", "lion", "tiger", "horse", "pig", "frog", "monkey", "elephant",
    "owl", "penguin", "duck", "butterfly", "fish", "whale", "unicorn", "dragon",
    "car", "bus", "train", "bicycle", "airplane", "rocket", "sailboat", "house", "castle",
    "tree", "sunflower", "mushroom", "sun", "moon", "snowman", "robot", "balloon",
    "pizza", "apple", "banana", "strawberry", "cake", "ice cream", "hamburger",
)  # fmt: skip

TIERS = {
    "cpu": Tier(
        side=128,
        renders=100_000,
        wide=Mix(tier=2),
        narrow=NARROW,
        shares={"clip": 0.12, "judge": 0.08, "vae": 0.15, "latent_head": 0.05, "unet": 0.6},
        budgets={
            "clip": Budget(1, 64, 1e-3, warmup=150, average=0.995, weight_decay=0.05, betas=(0.9, 0.98)),
            "judge": Budget(1, 64, 1e-3, warmup=150, average=0.995, weight_decay=0.05, betas=(0.9, 0.98)),
            "vae": Budget(1, 16, 1e-3, warmup=100, average=0.995),
            "latent_head": Budget(1, 64, 1e-3, warmup=100, average=0.995),
            "unet": Budget(1, 20, 8e-4, warmup=200, average=0.9985, decay=0.4, show_minutes=14),
        },
        unet_channels=(96, 192, 256),
        first=FIRST,
    ),
    "gpu": Tier(
        side=256,
        renders=100_000,
        wide=Mix(tier=3),
        narrow=replace(NARROW, tier=3, favourites=2.0, styled=0.2),
        shares={"clip": 0.1, "judge": 0.05, "vae": 0.15, "latent_head": 0.05, "unet": 0.65},
        budgets={
            "clip": Budget(1, 1024, 8e-4, warmup=300, average=0.998, weight_decay=0.05, betas=(0.9, 0.98)),
            "judge": Budget(1, 512, 8e-4, warmup=300, average=0.998, weight_decay=0.05, betas=(0.9, 0.98)),
            "vae": Budget(1, 64, 8e-4, warmup=200, average=0.998),
            "latent_head": Budget(1, 256, 8e-4, warmup=200, average=0.998),
            "unet": Budget(1, 256, 5e-4, warmup=500, average=0.9995),
        },
        unet_channels=(96, 192, 256),
    ),
}
