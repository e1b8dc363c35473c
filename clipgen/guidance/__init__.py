"""How sampling is steered, one method a file; each wraps or makes a PredictNoise of the loop."""
