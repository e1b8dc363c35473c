"""Runs ClipGuidance on every pipeline of tiny_pipelines: `python tests/attach/support.py [NAME ...]`.

Prints a line per pipeline: guided and how far similarity rose, or refused and with which message. Without names it
runs all of them, which takes a few minutes, and writes docs/diffusers-pipelines.md.
"""

# ruff: noqa: E402  # the path and the switches come before the imports that need them

from __future__ import annotations

import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    os.environ |= {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}

import torch
from attach.tiny_pipelines import PIPELINES, PROMPT, build

from clipgen import ClipgenError, ClipGuidance

FAILURES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError,
            NotImplementedError, TypeError, ValueError)  # fmt: skip
HEADER = """# ClipGuidance and the pipelines of diffusers

`python tests/attach/support.py` wrote this page: it builds each pipeline with tiny networks of random weights, runs
three steps with and without `ClipGuidance`, and compares the similarity of the images to the prompt. *Guided* means:
similarity rose, the same call gave the same image again, and afterwards the pipeline was as before.

| pipeline | ClipGuidance |
|---|---|
"""


def similarity(clip: str, pixels: torch.Tensor) -> float:
    """Returns the mean cosine similarity of images [B, 3, H, W] to PROMPT."""
    from clipgen.models.load_clip import load_encoder

    encoder = load_encoder(clip, torch.device("cpu"))
    with torch.no_grad():
        return float((encoder.image_features(pixels.clamp(0, 1)) @ encoder.text_features([PROMPT])[0]).mean())


def state_of(pipe: Any) -> dict[str, Any]:
    """Returns all that guidance could leave behind: hooks, attributes, weights and their memory format."""
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    hooks = {name: (len(part._forward_hooks), len(part._forward_pre_hooks)) for name, part in networks.items()}
    weights = {
        f"{name}.{key}": (weight.data_ptr(), weight.stride(), weight.dtype, weight.requires_grad, weight.grad is None)
        for name, part in networks.items()
        for key, weight in part.named_parameters()
    }
    scheduler = pipe.scheduler
    return {"hooks": hooks, "weights": weights, "step": "step" in vars(scheduler), "config": scheduler.config}


def outcome(name: str, clip: str) -> tuple[str, str]:
    """Returns (guided, refused, broken or not built) and the details."""
    try:
        pipe, draw = build(name)
    except FAILURES as error:
        return "not built", _trace(error)
    options = {"clip_models": [clip], "guidance_start": 0, "guidance_stop": 1, "guide_decoder": "full", "scale": 1.0}
    try:
        guidance = ClipGuidance(pipe, PROMPT, **options)
    except ClipgenError as error:
        return "refused", str(error)
    except FAILURES as error:
        return "broken", _trace(error)
    try:
        plain, before = draw(), state_of(pipe)
    except FAILURES as error:
        return "not built", _trace(error)
    try:
        with guidance:
            guided, again = draw(), draw()
    except FAILURES as error:
        return "broken", _trace(error)
    gain = similarity(clip, guided) - similarity(clip, plain)
    faults = {
        "not deterministic": not torch.equal(guided, again),
        "not restored": state_of(pipe) != before,
        "another image afterwards": not torch.equal(draw(), plain),
        "similarity does not rise": gain <= 0,
    }
    found = [fault for fault, is_there in faults.items() if is_there]
    return ("broken" if found else "guided"), f"similarity {gain:+.4f} {', '.join(found)}".strip()


def _trace(error: BaseException) -> str:
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__}: {str(error)[:240]} at {' '.join(places[-4:])}".replace("\n", " ")


def page(rows: Sequence[tuple[str, str, str]]) -> str:
    """Returns docs/diffusers-pipelines.md for rows of (pipeline, status, details)."""
    texts = {"guided": "guided", "refused": "refused: ", "broken": "does not work: ", "not built": "not tried: "}
    lines = [
        f"| `{name}` | {texts[status]}{'' if status == 'guided' else details.partition(' at ')[0]} |"
        for name, status, details in rows
        if status != "not built"
    ]
    counts = [f"{sum(row[1] == status for row in rows)} {status}" for status in ("guided", "refused", "broken")]
    return HEADER + "\n".join(lines) + f"\n\n{', '.join(counts)}.\n"


def main() -> None:
    """Runs the pipelines that the command line names, or all of them."""
    import tiny

    warnings.simplefilter("ignore")
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        clip = str(tiny.save_v(Path(folder) / "v") / "clip")
        for name in sys.argv[1:] or PIPELINES:
            rows.append((name, *outcome(name, clip)))
            print("\t".join(rows[-1]), flush=True)
    if not sys.argv[1:]:
        (ROOT / "docs" / "diffusers-pipelines.md").write_text(page(rows), "utf-8")


if __name__ == "__main__":
    main()
