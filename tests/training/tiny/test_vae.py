"""helios-tiny's VAE before any training."""

import numpy as np
import torch
from helios_video.helios_core.drawn.scenes import COLOURS, draw, scene
from helios_video.helios_core.training.tiny.vae import VAE_CONFIG, WanVAE, initialise, to_video


def test_untrained_vae_already_tells_colours_apart():
    """The near-linear start: pictures that differ in colour alone have different latents before any training."""
    torch.manual_seed(0)
    vae = WanVAE(VAE_CONFIG).eval()
    initialise(vae)
    video = to_video(np.stack([draw(scene(c, "circle", "up", "plain"), 1) for c in COLOURS]))
    with torch.inference_mode():
        latent = vae.encode(video)[0]
    assert latent.flatten(1).std(0).mean() > 0.05
