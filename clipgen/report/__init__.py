"""What every door tells people in words: a score, a comparison, the command that draws a picture again."""
