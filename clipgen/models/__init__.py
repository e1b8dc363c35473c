"""Models are data: find a model's folder, check every file of it before a network is built, load it."""

from __future__ import annotations

from clipgen.models.find import Found, ModelId, find_model, list_models, parse_id
from clipgen.models.header import read_json
from clipgen.models.layout import Checked, Layout, Network, Part
from clipgen.models.load import load
from clipgen.models.preflight import preflight, verify

__all__ = [
    "Checked",
    "Found",
    "Layout",
    "ModelId",
    "Network",
    "Part",
    "find_model",
    "list_models",
    "load",
    "parse_id",
    "preflight",
    "read_json",
    "verify",
]
