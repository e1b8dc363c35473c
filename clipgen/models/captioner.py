"""Loads the captioner that a model folder brings beside its CLIP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipgen.errors import ModelError, ModelNotFound
from clipgen.models.find import find_model
from clipgen.models.header import read_json
from clipgen.models.network import read_files

if TYPE_CHECKING:
    import torch

    from clipgen.clip.captioner import Captioner


def load_captioner(model: str, device: torch.device, *, offline: bool = False) -> Captioner:
    """Returns a model's captioner in float32; raises SettingsError, ModelNotFound, ModelError.

    Its files are held against its config before a network is built.
    """
    from safetensors import SafetensorError

    from clipgen.clip.captioner import FOLDER, SIZES, Captioner

    folder = find_model(model, offline=offline).path / FOLDER
    if not folder.is_dir():
        raise ModelNotFound(f"Model '{model[:200]}' brings no captioner. To train one: clipgen train captioner.")
    read_json(folder / SIZES)
    read_files(folder)
    try:
        return Captioner.from_pretrained(folder).float().requires_grad_(False).to(device)
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{FOLDER} cannot be read: {str(error).splitlines()[0][:160]}") from error
