"""The token counter below the prompt."""

from __future__ import annotations

from html import escape

from clipgen.errors import ClipgenError

from ..worker import Worker
from .paste import looks_pasted


def token_counter(worker: Worker, prompt: str | None) -> str:
    """Returns as HTML how many tokens a prompt has, of how many the text encoder reads, and which words are cut off.

    If a model has several text encoders, the one with the longest input counts.
    """
    from clipgen.text import count_tokens, lost_words, plain_text

    pipe = worker.pipeline
    if pipe is None or prompt is None or not prompt.strip() or looks_pasted(prompt):
        return ""
    try:
        text = plain_text(prompt, "a1111")
    except ClipgenError as error:
        return f'<span class="over">{escape(str(error))}</span>'
    encoder = max(pipe.family.text_encoders, key=lambda encoder: encoder.max_length)
    count, limit = count_tokens(text, encoder)
    if count <= limit:
        return f"<span>{count} of {limit} tokens</span>"
    cut = escape(lost_words(text, encoder))
    return f'<span class="over">{count} of {limit} tokens · cut off: <s>{cut}</s></span>'
