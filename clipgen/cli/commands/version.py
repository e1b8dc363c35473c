"""`clipgen version`: prints the version."""

from __future__ import annotations


def version() -> None:
    """Print the version."""
    import importlib.metadata

    print(f"clipgen {importlib.metadata.version('clipgen')}")
