"""CaptionedClips to train helios-tiny on."""

import numpy as np
import pytest
import torch
from helios_video.helios_core.drawn.scenes import random_scene
from helios_video.helios_core.training.tiny import files
from helios_video.helios_core.training.tiny.teacher import TEXT, CaptionedClips, tokenise


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(0)
    tokenizer = files.build_tokenizer(TEXT["vocab_size"])
    scenes = [random_scene(np.random.default_rng(i)) for i in range(6)]
    ids = torch.stack([tokenise(tokenizer, [s.caption(v) for v in range(3)]) for s in scenes])
    latents = torch.randn(6, 16, 36, 8, 8, generator=generator)
    stills = torch.randn(6, 16, 4, 8, 8, generator=generator)
    return CaptionedClips(latents, stills, ids, tokenise(tokenizer, [""]))
