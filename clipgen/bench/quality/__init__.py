"""Measuring what CLIP, the captioner and the pictures are worth, on scenes that nothing trained on."""
