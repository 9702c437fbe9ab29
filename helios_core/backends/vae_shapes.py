"""What the Wan VAE takes, for both backends: its configs, shapes of frames and latents, sizes of tiles."""

from __future__ import annotations


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """One number as height and width, or the two."""
    return (size, size) if isinstance(size, int) else size


def check_config(c) -> None:
    """ValueError for a VAE's config that this network is not: Wan 2.2, patched, with dropout, or uneven."""
    if c.is_residual or c.patch_size not in (None, 1):
        raise ValueError(
            f"wanted a Wan 2.1 VAE (is_residual false, patch_size null); came is_residual {c.is_residual}, "
            f"patch_size {c.patch_size}, as in Wan 2.2: take the VAE of the Helios or Wan 2.1 repository"
        )
    if c.dropout:
        raise ValueError(f"wanted a VAE without dropout, as all published ones; came {c.dropout}: set dropout to 0")
    if len(c.temperal_downsample) != len(c.dim_mult) - 1:
        raise ValueError(
            f"wanted one temperal_downsample less than dim_mult ({len(c.dim_mult)}); "
            f"came {len(c.temperal_downsample)}: correct the VAE's config.json"
        )


def check_latents(z, channels: int) -> None:
    """ValueError unless z is [b, channels, t, h, w] and not empty."""
    if z.ndim != 5 or z.shape[1] != channels or 0 in z.shape:
        raise ValueError(f"wanted latents [b, {channels}, t, h, w]; came {list(z.shape)}")


def check_frames(x, channels: int, factor: tuple[int, int]) -> None:
    """ValueError unless x is [b, channels, 1 + ft n, fs h, fs w], not empty; factor: (ft, fs)."""
    if x.ndim != 5 or x.shape[1] != channels or 0 in x.shape:
        raise ValueError(f"wanted frames [b, {channels}, t, h, w]; came {list(x.shape)}")
    _, _, t, h, w = x.shape
    ft, fs = factor
    if (t - 1) % ft or h % fs or w % fs:
        near = (nearest(t - 1, ft, 0, 1), nearest(h, fs, fs), nearest(w, fs, fs))
        raise ValueError(
            f"wanted 1 + {ft}n frames of a height and width that divide by {fs}; came {t} frames of {h}x{w}: "
            "nearest are {} frames, height {}, width {}".format(*near)
        )


def nearest(value: int, factor: int, least: int, offset: int = 0) -> str:
    """The multiples of `factor` around a value, with `offset` added, for a message; none below `least`."""
    below = max(value // factor * factor, least) + offset
    above = -(-value // factor) * factor + offset
    return f"{below}" if below >= above else f"{below} or {above}"
