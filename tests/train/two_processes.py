"""Trains a tiny CLIP in one of several processes, on its share of the images, and saves losses and weights.

python -m torch.distributed.run --nproc-per-node 2 two_processes.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny

from clipgen.train.captioned import Captioned
from clipgen.train.loop import Budget, ProcessGroup, _step
from clipgen.train.pair_clip import PairPart

IMAGES, STEPS = 16, 6


def main(folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    share = IMAGES // accelerator.num_processes
    first = share * accelerator.process_index
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    captions = [(f"picture {k // 2}",) for k in range(IMAGES)]  # each caption belongs to two images
    validation_images = share // 8  # PairPart uses as many for validation
    dataset = Captioned(
        np.concatenate([pixels[first : first + share], pixels[:validation_images]]),
        (*captions[first : first + share], *captions[:validation_images]),
        0,
    )
    words = tiny.tokenizer()
    part = PairPart(tiny.clip(words), words, {}, dataset, batch=share, seed=accelerator.process_index)
    part.to(accelerator.device)
    assert part.batch == share
    group = ProcessGroup(accelerator)
    group.broadcast_weights(part.model)
    optimizer = torch.optim.AdamW(part.model.parameters(), Budget(1, share, 1e-3).learning_rate)
    losses = [_step(part, optimizer, group, step, 0.0)[0] for step in range(STEPS)]
    if accelerator.is_main_process:
        name = f"of-{accelerator.num_processes}"
        (folder / f"{name}.json").write_text(json.dumps(losses))
        save_file(
            {key: value.contiguous() for key, value in part.model.state_dict().items()}, folder / f"{name}.safetensors"
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
