"""A control video's frames as latents: cut into chunks, each encoded on its own, as the video itself is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np
from einops import pack


def encode_clip(
    helios, frames: Iterable, width: int, height: int, *, encode: Callable | None = None, most: int | None = None,
    tell: Callable | None = None,
):  # fmt: skip
    """Frames [h w 3] one by one, uint8 or 0 to 1 -> normalised latents [1 c 9k height/8 width/8] of k whole chunks.

    Other sizes are cropped about the centre and resized. encode: frames [f h w 3] -> raw mean and std, the model's own
    VAE if left open. most: chunks to take. tell(text): of frames at the end that fill no chunk. ValueError for less
    than one chunk, and for a VAE of another model.
    """
    size, chunks, kept = helios.config.frames_per_chunk, [], []
    for frame in frames:
        kept.append(np.asarray(frame))
        if kept[-1].ndim != 3 or kept[-1].shape[2] < 3:
            raise ValueError(f"control: wanted pictures [height, width, 3], got {list(kept[-1].shape)}")
        if len(kept) == size:
            chunks.append(_encode(helios, np.stack(kept), width, height, encode))
            kept = []
        if len(chunks) == most:
            break
    if not chunks:
        raise ValueError(
            f"control: wanted at least {size} frames, one chunk, got {len(kept)}; give a longer clip, or hold its last "
            "picture still"
        )
    if kept and tell is not None:
        tell(f"control: the last {len(kept)} frames fill no chunk of {size} and are left out")
    return pack(chunks, "b c * h w")[0]


def _encode(helios, frames, width: int, height: int, encode: Callable | None):
    helios.parts.host.stop()
    picture = helios.backend.fit(frames[..., :3], width, height)
    if encode is None:
        mean, _ = helios.backend.encode(helios.parts.ready("vae", width, height), picture)
    else:
        mean, _ = encode(picture)
    return from_latents(helios, helios.normalise(helios.backend.array(mean)))


def from_latents(helios, z):
    """Normalised latents [b c t h w], checked: whole chunks of the model's channels. ValueError else."""
    frames, channels = helios.config.defaults.chunk_latent_frames, helios.config.vae.z_dim
    if len(z.shape) != 5 or 0 in z.shape or z.shape[1] != channels or z.shape[2] % frames:
        raise ValueError(
            f"control: wanted latents [batch, {channels}, frames, height, width], frames a multiple of {frames} (whole "
            f"chunks, each encoded on its own); got {list(z.shape)}. Give the control video as pictures instead"
        )
    if not bool(helios.backend.all_finite(z)):
        raise ValueError("control: its latents hold NaN or infinity; run the VAE in fp32")
    return z


def parse_chunks(text: str) -> tuple[int, int | None]:
    """ "2-5", "2-", "2" (only that) or "" (all): first and last chunk, counted from 0. ValueError for anything else."""
    found = re.fullmatch(r"\s*(?:(\d{1,6})\s*(?:(-)\s*(\d{1,6})?)?)?\s*", text)
    if not found:
        raise ValueError(f"control chunks {text!r}: wanted such as 2-5, 2- or 2, counted from 0")
    first, through, last = found.groups()
    if first is None:
        return 0, None
    end = int(last) if last else None if through else int(first)
    if end is not None and end < int(first):
        raise ValueError(f"control chunks {text!r}: the last is before the first")
    return int(first), end
