"""Captioners (ClipCap, CoCa, BLIP), and the comparison of a caption with a prompt."""
