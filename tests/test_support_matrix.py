from __future__ import annotations

import support_matrix


def test_the_support_matrix_is_up_to_date(tmp_path):
    """Every feature of every family works or is refused in one line; any other error fails here."""
    assert support_matrix.updated(tmp_path) == support_matrix.DOC.read_text("utf-8"), "run tests/support_matrix.py"
