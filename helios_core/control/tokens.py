"""From control latents to tokens: down the pyramid by a variance policy, then one linear embedding of patches."""

from __future__ import annotations

from einops import rearrange

from .. import pyramid


def levels(z, stages: int, policy: str) -> list:
    """Control latents [b c t h w] at every stage of the pyramid, coarsest first; the finest are themselves."""
    return [z if not k else pyramid.downsample(z, (2,) * k, policy) for k in reversed(range(stages))]


def patches(z, patch: tuple[int, int, int]):
    """Latents [b c t h w] -> [b n c*pt*ph*pw], in the order of a kernel [d c pt ph pw]."""
    pt, ph, pw = patch
    return rearrange(z, "b c (t pt) (h ph) (w pw) -> b (t h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw)


def tokens(z, weight, bias):
    """The patch embedding of latents z [b c t h w] by a kernel [d c pt ph pw] and bias [d]: [b n d]."""
    kernel = rearrange(weight, "d c pt ph pw -> d (c pt ph pw)")
    return patches(z, tuple(weight.shape[2:])) @ kernel.T + bias
