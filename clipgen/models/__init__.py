"""Models are data: find a model's folder, check every file of it before a network is built, load it."""

from __future__ import annotations

from clipgen.models.find import Found, ModelId, find_clip, find_model, list_models, parse_id
from clipgen.models.header import read_json
from clipgen.models.layout import Checked, Layout, Network, Pair, Part, Sheet, encoder_of
from clipgen.models.load import Filling, load, untold
from clipgen.models.load_clip import load_encoder
from clipgen.models.preflight import check_scheduler, preflight, verify
from clipgen.models.sides import Sides

__all__ = [
    "Checked",
    "Filling",
    "Found",
    "Layout",
    "ModelId",
    "Network",
    "Pair",
    "Part",
    "Sheet",
    "Sides",
    "check_scheduler",
    "encoder_of",
    "find_clip",
    "find_model",
    "list_models",
    "load",
    "load_encoder",
    "parse_id",
    "preflight",
    "read_json",
    "untold",
    "verify",
]
