"""What CLIP sees: pictures and texts as unit vectors, and a calibrated score of the one by the other."""
