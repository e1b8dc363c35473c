"""CLIP: image and text features of unit length, and what is computed from them (scores, labels, prompt checks)."""
