"""Finds, checks and loads models. Models are data: safetensors and JSON only, checked before a network is built."""

from __future__ import annotations

from clipgen.models.find import find_clip, find_model, list_models
from clipgen.models.header import read_json
from clipgen.models.ids import ModelFolder, ModelId, is_offline, parse_id
from clipgen.models.known_words import known_words
from clipgen.models.layout import (
    CheckedModel,
    CheckedNetwork,
    ClassRef,
    ConfigComponent,
    Layout,
    NetworkSpec,
    SizeLimits,
    encoder_of,
)
from clipgen.models.load import LoadProgress, ignore_progress, load_components
from clipgen.models.load_clip import load_encoder
from clipgen.models.preflight import check_scheduler, preflight, read_vocabulary, verify

__all__ = [
    "CheckedModel",
    "CheckedNetwork",
    "ClassRef",
    "ConfigComponent",
    "Layout",
    "LoadProgress",
    "ModelFolder",
    "ModelId",
    "NetworkSpec",
    "SizeLimits",
    "check_scheduler",
    "encoder_of",
    "find_clip",
    "find_model",
    "ignore_progress",
    "is_offline",
    "known_words",
    "list_models",
    "load_components",
    "load_encoder",
    "parse_id",
    "preflight",
    "read_json",
    "read_vocabulary",
    "verify",
]
