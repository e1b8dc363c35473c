"""Captioners (ClipCap, CoCa, BLIP), and the difference between a caption and a prompt."""
