"""Runs ClipGuidance on every pipeline of tiny_pipelines: `python tests/attach/support.py [NAME ...]`.

Prints a line per pipeline: guided and how far similarity rose, or refused and with which message.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}

import tiny
import torch
from attach.tiny_pipelines import PIPELINES, PROMPT, build

from clipgen import ClipgenError, ClipGuidance


def similarity(clip: str, pixels: torch.Tensor) -> float:
    """Returns the mean cosine similarity of images [B, 3, H, W] to PROMPT."""
    from clipgen.models.load_clip import load_encoder

    encoder = load_encoder(clip, torch.device("cpu"))
    with torch.no_grad():
        return float((encoder.image_features(pixels.clamp(0, 1)) @ encoder.text_features([PROMPT])[0]).mean())


def state_of(pipe: Any) -> dict[str, Any]:
    """Returns what guidance could leave behind in a pipeline: hooks, attributes, weights and their memory format."""
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    hooks = {name: (len(part._forward_hooks), len(part._forward_pre_hooks)) for name, part in networks.items()}
    weights = {
        f"{name}.{key}": (weight.data_ptr(), weight.stride(), weight.dtype, weight.requires_grad, weight.grad is None)
        for name, part in networks.items()
        for key, weight in part.named_parameters()
    }
    scheduler = pipe.components.get("scheduler")
    return {"hooks": hooks, "weights": weights, "step": "step" in vars(scheduler) if scheduler is not None else None}


def outcome(name: str, clip: str) -> tuple[str, str]:
    """Returns (guided, refused, broken or not built) and the details."""
    try:
        pipe, draw = build(name)
    except Exception as error:
        return "not built", f"{type(error).__name__}: {str(error)[:200]}"
    options = {"clip_models": [clip], "guidance_start": 0, "guidance_stop": 1, "guide_decoder": "full", "scale": 1.0}
    try:
        ClipGuidance(pipe, PROMPT, **options)
    except ClipgenError as error:
        return "refused", str(error)
    except Exception as error:
        return "broken", "at construction: " + trace(error)
    try:
        plain = draw()
    except Exception as error:
        return "not built", trace(error)
    before = state_of(pipe)
    try:
        with ClipGuidance(pipe, PROMPT, **options) as guidance:
            guided, again = draw(), draw()
    except Exception as error:
        return "broken", trace(error)
    gain = similarity(clip, guided) - similarity(clip, plain)
    faults = [
        *([] if torch.equal(guided, again) else ["not deterministic"]),
        *([] if state_of(pipe) == before else ["not restored"]),
        *([] if torch.equal(draw(), plain) else ["another image afterwards"]),
        *([] if gain > 0 else ["similarity falls"]),
    ]
    curve = " ".join(f"{value:.3f}" for _, value in guidance.curve())
    return ("guided" if not faults else "broken"), f"{gain:+.4f} {' '.join(faults)} [{curve}]"


def trace(error: BaseException) -> str:
    frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)][-4:]
    return f"{type(error).__name__}: {str(error)[:240]} at {' '.join(frames)}".replace("\n", " ")


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        clip = str(tiny.save_v(Path(folder) / "v") / "clip")
        for name in sys.argv[1:] or PIPELINES:
            status, details = outcome(name, clip)
            print(f"{name}\t{status}\t{details}", flush=True)


if __name__ == "__main__":
    main()
