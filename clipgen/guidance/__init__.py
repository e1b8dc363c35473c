"""CLIP guidance, one method per file. The one idea: at each step a method returns a correction of x0.

    x0 += correction(step)

`sampling.prediction.inject` turns the corrected x0 back into the model output, for each prediction type; the scheduler
never knows.
"""
