"""Every training test gets a new accelerator, in the precision that it asks for."""

from __future__ import annotations

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """Resets the accelerator of the previous test, since a process has a single precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
