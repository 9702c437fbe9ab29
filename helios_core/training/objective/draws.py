"""Random draws of a training step, the same on every device; and a chunk's past as a step sees it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...history import History

WINDOW = History.length((16, 2, 1), True)  # latent frames of a history
CLEAN_HISTORY = 0.1
MAX_HISTORY_NOISE = 1 / 3


class SeededDraws:
    """The random numbers of one step, drawn on the CPU. seed: the step's, so that a resumed run draws the same."""

    def __init__(self, seed: int):
        self.rng = torch.Generator().manual_seed(seed % 2**63)  # of torch's range

    def rand(self, *shape) -> Tensor:
        """Uniform in [0, 1), on the CPU."""
        return torch.rand(shape, generator=self.rng)

    def randn(self, *shape) -> Tensor:
        """Standard normal, on the CPU."""
        return torch.randn(shape, generator=self.rng)

    def pick(self, count: int, n: int) -> Tensor:
        """n indices below count."""
        return torch.randint(count, (n,), generator=self.rng)

    def choose(self, odds, n: int) -> Tensor:
        """n indices, each as often as its share of the odds."""
        return torch.multinomial(torch.as_tensor(odds, dtype=torch.float32), n, replacement=True, generator=self.rng)

    def corrupt(self, frames: Tensor) -> Tensor:
        """Per-frame noise of sigma up to a third, so that the model does not trust its own past; no history stays 0.

        frames [b c t h w], on the CPU.
        """
        n, _, t = frames.shape[:3]
        sigma = self.rand(n, 1, t, 1, 1) * MAX_HISTORY_NOISE
        sigma = sigma * (self.rand(n, 1, 1, 1, 1) >= CLEAN_HISTORY)
        noisy = sigma * self.randn(*frames.shape) + (1 - sigma) * frames
        present = (frames != 0).flatten(3).any(-1).any(1)[:, None, :, None, None]
        return noisy * present


def chunks_and_pasts(latents, stills, place: Tensor, image: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """(chunks [b c frames h w], history windows [b c 19 h w], anchors [b c 1 h w]) of clips as inference sees them.

    latents: per sample those of a clip [c t h w], normalised, chunk behind chunk. stills: per sample and chunk the last
    latent of the chunk's first picture held still [c chunks h w]. place: the chunk to take of each. image [b]: whether
    the chunk begins a video from its own first picture; else its past is the clip before it, nothing before the first.
    frames: latent frames of a chunk.
    """
    rows = []
    for clip, still, k, from_image in zip(latents, stills, place.tolist(), image.tolist(), strict=True):
        chunk = clip[:, k * frames : (k + 1) * frames]
        anchor = chunk[:, :1] if from_image else clip[:, :1] * (k > 0)
        past = still[:, k : k + 1] if from_image else clip[:, : k * frames]
        past = past[:, max(0, past.shape[1] - WINDOW) :]
        before = WINDOW - past.shape[1]
        rows.append((chunk, nn.functional.pad(past, (0, 0, 0, 0, before, 0)), anchor))
    return tuple(torch.stack(parts) for parts in zip(*rows))
