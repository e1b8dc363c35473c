"""The files of a model as the preflight reads them: a folder in diffusers' layout, or a single file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from clipgen.models.header import read_json
from clipgen.models.layout import NetworkFiles, TokenizerFiles
from clipgen.models.network import read_files

SCHEDULER_CONFIG = "scheduler_config.json"


class ModelFiles(Protocol):
    """What the preflight reads. Each method raises ModelError, or ModelNotFound for files that are not there."""

    def index(self) -> dict[str, Any]:
        """Returns model_index.json."""

    def scheduler(self) -> dict[str, Any]:
        """Returns the scheduler's config."""

    def has_network(self, name: str) -> bool:
        """Tells whether there are files of a network that the index does not name."""

    def network(self, name: str) -> NetworkFiles:
        """Returns the files of a network."""

    def tokenizer(self, name: str) -> TokenizerFiles:
        """Returns the files of a tokenizer."""

    def component_config(self, name: str, file: str) -> dict[str, Any]:
        """Returns the config of a component without weights."""


class FolderFiles:
    """The files of a folder in diffusers' layout."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def index(self) -> dict[str, Any]:
        """Returns model_index.json."""
        return read_json(self.path / "model_index.json")

    def scheduler(self) -> dict[str, Any]:
        """Returns the scheduler's config."""
        return read_json(self.path / "scheduler" / SCHEDULER_CONFIG)

    def has_network(self, name: str) -> bool:
        """Tells whether the folder has one for this network."""
        return (self.path / name).is_dir()

    def network(self, name: str) -> NetworkFiles:
        """Returns the config and the weights of a network."""
        return read_files(self.path / name)

    def tokenizer(self, name: str) -> TokenizerFiles:
        """Returns the folder of a tokenizer."""
        return TokenizerFiles(self.path / name)

    def component_config(self, name: str, file: str) -> dict[str, Any]:
        """Returns the config of a component without weights."""
        return read_json(self.path / name / file)
