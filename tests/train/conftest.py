"""What tests of training get: an accelerator of their own, in whatever precision they ask for."""

from __future__ import annotations

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """Forgets the accelerator of the test before; a process may have one precision only."""
    AcceleratorState._reset_state(reset_partial_state=True)
