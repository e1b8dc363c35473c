"""Measures CLIP, the captioner and generated images on scenes of held-out combinations, which nothing trained on."""
