from __future__ import annotations

import hashlib
from pathlib import Path

from clipgen.hashing import seed_from_text, sha256_of


def test_a_file_a_string_and_bytes_of_equal_content_have_the_same_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == sha256_of("abc") == sha256_of(b"abc") == hashlib.sha256(b"abc").hexdigest()
    assert len(sha256_of("\ud800")) == 64  # an unpaired surrogate


def test_seeds_depend_on_the_text_and_are_valid_for_torch() -> None:
    assert seed_from_text("7/vary") == seed_from_text("7/vary") != seed_from_text("8/vary")
    assert all(0 <= seed_from_text(str(k)) < 2**56 for k in range(100))
    assert seed_from_text("a", 8) >= 2**32
