"""CLIP guidance, one method per file. The one idea: at each step a method returns a correction of x0.

    x0 += correction(step_state)

`sampling.prediction.inject` turns the corrected x0 back into the model output, for each prediction type; the scheduler
never knows. Two methods select rows of the batch instead, and one optimises the initial noise.

Prediction (always on)
    classifier_free      uncond + scale (cond - uncond): Ho and Salimans 2022, arXiv 2207.12598
    adaptive_projection  the same without the part that oversaturates (APG): Sadat et al. 2024, arXiv 2410.02416

Guidance methods
    clip_gradient        clip: gradient of CLIP similarity at x0 (MPGD): He et al. 2023, arXiv 2311.16424; with
                         through_unet also through the denoiser (DPS): Chung et al. 2022, arXiv 2209.14687
    latent_gradient      clip: the same by a CLIP head on noisy latents (GLIDE): Nichol et al. 2021, arXiv 2112.10741
    pick                 pick: best of N candidates by successive halving: Karnin et al. 2013 (ICML)
    steer                steer: Feynman-Kac particles: Singhal et al. 2025, arXiv 2501.06848
    optimise             optimise: gradient ascent on the initial noise (ReNO): Eyring et al. 2024, arXiv 2406.04312

What they share
    build                Settings -> the Guidance of a batch; start reading here
    targets              which CLIPs guide, and the text and image embeddings they guide towards
    latent_decoder       differentiable decoders, from a matrix to the full VAE
    guard                warns if the gain in similarity does not survive small changes of the image
    quantisation         refuses through_unet for denoisers that cannot back-propagate
    flops, budget        what each method costs, and which one a budget buys
"""
