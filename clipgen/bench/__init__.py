"""Benchmarks: generation speed, the gain and cost of CLIP guidance, and the quality of CLIP, captions and images."""
