"""The token counter counts with the loaded model's tokenizer and shows the words that are cut off."""

from __future__ import annotations

from clipgen.ui.form.token_counter import token_counter
from clipgen.ui.worker import Worker


def test_tokens_are_counted_and_cut_words_are_shown(worker: Worker) -> None:
    assert token_counter(worker, "a fox") == ""  # no model is loaded yet
    list(worker.generate(worker.build_settings({"prompt": "a fox", "steps": 1}), "session"))
    assert "of 30 tokens" in token_counter(worker, "a fox")
    assert "cut off: <s>" in token_counter(worker, "fox & hound " * 20)
    assert "weight must be 0 to 2" in token_counter(worker, "(a:9)")
    assert token_counter(worker, "  ") == ""
    assert "in 1 window of 30" in token_counter(worker, "a fox in snow", "chunk")
    assert "in 2 windows of 30" in token_counter(worker, "a fox BREAK snow", "chunk")
