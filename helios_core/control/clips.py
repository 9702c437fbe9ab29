"""A control video's frames as latents: cut into chunks, each encoded on its own, as the video itself is."""

from __future__ import annotations

import re
from collections.abc import Callable

from einops import pack


def encode_clip(helios, frames, width: int, height: int, encode: Callable | None = None, tell: Callable | None = None):
    """Frames [f h w 3], uint8 or 0 to 1 -> normalised latents [1 c 9k height/8 width/8] of its k whole chunks.

    Other sizes are cropped about the centre and resized. encode: frames -> raw mean and std, the model's own VAE if
    left open. tell(text): of frames at the end that fill no chunk. ValueError for less than one chunk, and for a VAE of
    another model.
    """
    size = helios.config.frames_per_chunk
    if len(frames.shape) != 4 or frames.shape[3] < 3:
        raise ValueError(f"control: wanted pictures [frames, height, width, 3], got {list(frames.shape)}")
    count, rest = divmod(len(frames), size)
    if not count:
        raise ValueError(
            f"control: wanted at least {size} frames, one chunk, got {len(frames)}; a longer clip, or the same held "
            "still at its end"
        )
    if rest and tell is not None:
        tell(f"control: the last {rest} of {len(frames)} frames fill no chunk of {size} and are left out")
    chunks = [_encode(helios, frames[k * size : (k + 1) * size], width, height, encode) for k in range(count)]
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
