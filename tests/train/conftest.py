"""Every training test creates its accelerator with its precision."""

from __future__ import annotations

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """Resets the accelerator of the previous test, since a process has a single precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
