"""The folder that training helios-tiny writes."""

import pytest
import torch
from helios_video.helios_core.training.tiny import distil, files
from helios_video.helios_core.training.tiny.teacher import MANY_STEPS, TEXT, Tiny, write_checkpoint
from helios_video.helios_core.training.tiny.vae import VAE_CONFIG, WanVAE, initialise


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [(MANY_STEPS, ("mid", "euler", 3.0)), (distil.FEW_STEPS, ("distilled", "dmd", 1.0))],
)
def test_written_folder_opens_and_samples(tmp_path, sampling, wanted):
    from helios_video.helios_core import load

    torch.manual_seed(0)
    tokenizer = files.build_tokenizer(TEXT["vocab_size"])
    vae = WanVAE(VAE_CONFIG)
    initialise(vae)
    write_checkpoint(tmp_path / "t", Tiny(), vae, tokenizer, ([0.0] * 16, [1.0] * 16), sampling)
    helios = load(tmp_path / "t")
    assert (helios.config.variant, helios.config.defaults.solver, helios.config.defaults.cfg) == wanted
    assert helios.config.schedule == sampling.schedule
    steps = list(helios.sample(helios.history(64, 64), helios.text("a red circle"), seed=0, steps=(1, 1, 1)))
    assert steps[-1].latent.shape == (1, 16, 9, 8, 8)
    assert helios.decode(steps[-1].latent).shape == (33, 64, 64, 3)
