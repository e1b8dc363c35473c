"""The token counter below the prompt."""

from __future__ import annotations

from html import escape

from clipgen.errors import ClipgenError

from ..worker import Worker
from .paste import looks_pasted


def token_counter(worker: Worker, prompt: str | None, long_prompt: str = "cut") -> str:
    """Returns as HTML how many tokens a prompt has, of how many the text encoder reads, and which words are cut off.

    If a model has several text encoders, the one with the longest input counts. With `chunk` it returns the number of
    windows that the model reads, if the model reads windows.
    """
    from clipgen.families import FAMILIES
    from clipgen.text import count_tokens, lost_words, plain_text, tokenize_prompt

    pipe = worker.pipeline
    if pipe is None or prompt is None or not prompt.strip() or looks_pasted(prompt):
        return ""
    try:
        text = plain_text(prompt, "a1111", long_prompt)
        encoder = max(pipe.family.text_encoders, key=lambda encoder: encoder.max_length)
        count, limit = count_tokens(text, encoder)
        if long_prompt == "chunk" and FAMILIES[pipe.family.name][0].clip_text:
            windows = tokenize_prompt(prompt, [encoder], long_prompt="chunk").count
            return f"<span>{count} tokens in {windows} window{'s' * (windows > 1)} of {limit}</span>"
    except ClipgenError as error:
        return f'<span class="over">{escape(str(error))}</span>'
    if count <= limit:
        return f"<span>{count} of {limit} tokens</span>"
    cut = escape(lost_words(text, encoder))
    return f'<span class="over">{count} of {limit} tokens · cut off: <s>{cut}</s></span>'
