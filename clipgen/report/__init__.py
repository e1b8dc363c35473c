"""Texts that the terminal and the browser share: scores, comparisons, and the command that draws a picture again."""
