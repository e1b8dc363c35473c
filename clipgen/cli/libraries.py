"""Keeps the messages and progress bars of torch, transformers, diffusers and huggingface_hub out of the terminal."""

from __future__ import annotations

import os
import sys
import warnings

# huggingface_hub, transformers and diffusers read these variables when they are imported
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DIFFUSERS_VERBOSITY": "error",
}


def silence_libraries() -> None:
    """Silences libraries unless the user set their variables or Python's -W; to be called before they are imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
