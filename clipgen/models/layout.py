"""What a family expects of a model folder, and what the preflight found in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.models.find import Found
from clipgen.models.header import Entry

if TYPE_CHECKING:
    from torch.nn import Module

Pair = tuple[str, str]  # a library and a class of it, as model_index.json names them


@dataclass(frozen=True)
class Part:
    """One network of a family: the classes it may be of, and how tensor names of older files map to today's.

    `full_precision` keeps it in float32 whatever the others run in.
    """

    classes: tuple[Pair, ...]
    rename: Callable[[str], str] = str
    required: bool = True
    full_precision: bool = False


@dataclass(frozen=True)
class Layout:
    """What a family's folder may hold: networks, tokenizers, a scheduler; `unused` is known and never loaded.

    A network that model_index.json does not name (`clip`) counts if its folder is there. `check` sees the networks,
    not yet filled, and the tokenizers' configs, and raises ModelError if they do not belong together.
    """

    family: str
    pipeline_classes: tuple[str, ...]
    networks: Mapping[str, Part]
    tokenizers: Mapping[str, tuple[Pair, ...]]
    schedulers: tuple[str, ...]
    unused: Mapping[str, tuple[Pair, ...]]
    check: Callable[[Mapping[str, Any], Mapping[str, dict[str, Any]]], None]


@dataclass(frozen=True)
class Files:
    """The files of one network, read as far as their headers."""

    config: dict[str, Any]
    paths: tuple[Path, ...]
    header: dict[str, Entry]


@dataclass(frozen=True)
class Network:
    """A network whose files have passed: its module on the meta device, and the files that will fill it."""

    module: Module
    paths: tuple[Path, ...]
    part: Part


@dataclass(frozen=True)
class Checked:
    """A model that has passed the preflight; nothing of its weights is in memory yet.

    `scheduler` is the scheduler's config; `defaults` are the Settings fields that its clipgen.json recommends.
    """

    found: Found
    layout: Layout
    networks: Mapping[str, Network]
    scheduler: dict[str, Any]
    defaults: dict[str, Any]
