"""Linear previews: the colour of a latent pixel as a linear function of its channels, fitted to a VAE by encoding."""

from __future__ import annotations

import numpy as np
from einops import rearrange, reduce

from ..noise import Noise

SIDE, GROUND, PATCH = 64, 16, 16  # pixels: of the picture, of a ground of one colour, of a bright patch
COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1))
WAYS = ((0, 1), (1, 0), (-1, -1), (1, -1), (0, -1), (-1, 0))  # down and right per frame


def fit(helios) -> np.ndarray:
    """[c + 1, 3] float32: the colours, in [-1, 1], of each channel of normalised latents, and in the last row of none.

    Least squares over the latents of a drawn chunk, all of its frames: a clip's first latents differ from later ones.
    """
    scale, span = helios.config.vae.scale_factor_spatial, helios.config.vae.scale_factor_temporal
    frames = draw(helios.config.frames_per_chunk)
    mean, _ = helios.backend.encode(helios.parts.ready("vae", SIDE, SIDE), helios.backend.fit(frames, SIDE, SIDE))
    latents = np.asarray(helios.normalise(helios.backend.array(mean)))
    rows = rearrange(latents, "1 c t h w -> (t h w) c")
    lasting = np.concatenate([frames[:1].repeat(span, axis=0), frames[1:]]) * 2 - 1
    wanted = reduce(lasting, "(t s) (h a) (w b) c -> (t h w) c", "mean", s=span, a=scale, b=scale)
    known = np.concatenate([rows, np.ones_like(rows[:, :1])], axis=1)
    return np.linalg.lstsq(known, wanted, rcond=None)[0].astype(np.float32)


def draw(count: int) -> np.ndarray:
    """Frames [f h w 3] from 0 to 1: bright patches that drift over dull grounds."""
    noise, grounds = Noise(0), SIDE // GROUND
    grey = 0.05 + 0.8 * noise.uniform((grounds, grounds, 1), chunk=0, use="preview greys")
    tint = 0.05 * noise.normal((grounds, grounds, 3), chunk=0, use="preview tints")
    still = np.clip(grey + tint, 0, 1).repeat(GROUND, axis=0).repeat(GROUND, axis=1)
    frames = still[None].repeat(count, axis=0)
    corners = (SIDE * noise.uniform((len(COLOURS), 2), chunk=0, use="preview corners")).astype(int)
    for (top, left), colour, (down, right) in zip(corners, COLOURS, WAYS, strict=True):
        for i, frame in enumerate(frames):
            rows, columns = (np.arange(PATCH) + at for at in (top + down * i, left + right * i))
            frame[np.ix_(rows % SIDE, columns % SIDE)] = 0.05 + 0.9 * np.array(colour)
    return frames
