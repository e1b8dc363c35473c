"""Sampling: the loop, the prediction types, the schedulers and cancellation. Nothing here knows a model family or CLIP.

loop             from noise to latents, one scheduler step per yield
prediction       epsilon, v, sample and flow: x0 from the model output, and a corrected x0 back into it
make_scheduler   a diffusers scheduler, by name, for a model's scheduler config
schedulers       the table of scheduler names (no torch)
cancellation     stops a run in the middle of a step
"""
