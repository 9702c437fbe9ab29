"""Pictures into the VAE: sizes fitted, frames encoded."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate


@torch.inference_mode()
def fit(frames, width: int, height: int) -> Tensor:
    """Frames [f h w 3], uint8 or floats from 0 to 1 -> float32 [f height width 3] on the CPU.

    Another size is cropped about the centre to the proportions wanted, then resized (bicubic, antialiased); the size
    wanted passes as it is. What lies in the numbers never changes how they are read. ValueError for NaN or infinity.
    """
    return torch.stack([_fit(torch.as_tensor(frame), width, height) for frame in frames])


def _fit(x: Tensor, width: int, height: int) -> Tensor:
    """One frame [h w 3], cropped before it becomes floats, so that large videos cost little."""
    h, w = x.shape[:2]
    inner_h, inner_w = min(h, max(1, round(w * height / width))), min(w, max(1, round(h * width / height)))
    top, left = (h - inner_h) // 2, (w - inner_w) // 2
    x = x if (w, h) == (width, height) else x[top : top + inner_h, left : left + inner_w]
    x = x.float().cpu() / 255 if x.dtype == torch.uint8 else x.float().cpu()
    if not torch.isfinite(x).all():
        raise ValueError("the picture holds NaN or infinity; wanted numbers from 0 to 1: look at the node that made it")
    if (w, h) == (width, height):
        return x
    x = rearrange(x, "h w c -> 1 c h w")
    x = interpolate(x, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return rearrange(x.clamp(0, 1), "1 c h w -> h w c")


@torch.inference_mode()
def encode(vae, frames) -> tuple[Tensor, Tensor]:
    """Frames [1 + 4n, 8h, 8w, 3] from 0 to 1, of any library -> mean and std of the raw latents, each [1 c 1 + n h w],
    on the CPU."""
    x = rearrange(torch.as_tensor(frames).float() * 2 - 1, "f h w c -> 1 c f h w")
    mean, logvar = vae.encode(x.to(vae.dtype).to(vae.device))
    return mean.float().cpu(), (logvar.float() / 2).exp().cpu()
