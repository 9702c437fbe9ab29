"""What the tests of starts share: drawn pictures of the size of reference.py, and draws in the published order."""

import numpy as np
import torch
from helios_video.helios_core.drawn import scenes

CASES = {"image": 1, "video": 70}  # what a video starts from, and how many frames that has
DRAWN = scenes.scene("red", "circle", "left", "striped")
OTHER = scenes.scene("blue", "square", "up", "plain")


def draw(frames):
    """uint8 [f 64 128 3]: two scenes side by side."""
    return np.concatenate([scenes.draw(DRAWN, frames), scenes.draw(OTHER, frames)], axis=2)


class Sequence:
    """Draws in turn from one torch generator, as diffusers does, whatever they are for; notes what they were for."""

    def __init__(self, seed=3):
        self.generator, self.uses = torch.Generator().manual_seed(seed), []

    def normal(self, shape, *, use, **_):
        self.uses.append(use)
        return torch.randn(tuple(shape), generator=self.generator).numpy()

    def uniform(self, shape, *, use, **_):
        self.uses.append(use)
        return torch.rand(tuple(shape), generator=self.generator).numpy()
