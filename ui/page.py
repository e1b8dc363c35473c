"""A gr.Blocks that refuses inputs it cannot take in words, and prints no traceback over what somebody posted."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.exceptions import Error

REFUSED = "These inputs do not fit what this endpoint takes; GET /gradio_api/info lists it."


class Page(gr.Blocks):
    """The page: its handlers may fail loudly, a stranger's body only in words."""

    async def preprocess_data(self, block_fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Turns a body into a handler's inputs; raises gr.Error for one that no handler takes."""
        if block_fn.fn is None:  # what happens in the browser alone
            raise gr.Error(REFUSED, print_exception=False)
        try:
            return await super().preprocess_data(block_fn, *args, **kwargs)
        except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError, Error) as error:
            raise gr.Error(REFUSED, print_exception=False) from error
