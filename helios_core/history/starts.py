"""Where a video begins: from an image, a video or earlier latents to the history before its next chunk.

An image is the anchor, and the last latent of that image held still for a chunk stands for its past. A video gives
its first frame as the anchor, and its last whole chunks, each encoded on its own, as the past; what is too old for the
window is not encoded. Both are noised a little, since the model was trained on pasts of its own making. Source: the
published pipelines; the draws come in their order, and each is keyed by its use, so that none depends on another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from einops import pack, rearrange

from ..noise import Noise
from .window import History

SIGMA = (0.111, 0.135)  # least and most noise, as published
POSTERIORS = ("sample", "mean")


@dataclass(frozen=True)
class PictureEncoder:
    """Pictures -> normalised latents on the CPU.

    fit(frames): floats [f height width 3] of the video's size. encode(frames): mean and std (or None) of the raw
    latents [1 c t h w]. normalise(raw). array(numpy). noise: a Noise, or what tests inject. frames,
    latent_frames: of one chunk.
    """

    fit: Callable
    encode: Callable
    normalise: Callable
    array: Callable
    noise: Any
    frames: int
    latent_frames: int
    sample: bool = True

    def latent(self, frames, use: str, block: int = 0):
        """One block of pictures, encoded on its own: a draw from the posterior, or its mean."""
        mean, std = self.encode(frames)
        if self.sample and std is not None:
            mean = mean + std * self.array(self.noise.normal(mean.shape, chunk=block, use=f"{use} posterior"))
        return self.normalise(mean)

    def corrupt(self, z, sigma: tuple[float, float], use: str, block: int = 0):
        """z [b c t h w] with noise: s noise + (1 - s) z, s drawn for every frame between the two sigmas."""
        least, most = sigma
        if most == 0:
            return z
        drawn = self.array(self.noise.uniform(z.shape[2:3], chunk=block, use=f"{use} sigma"))
        s = rearrange(drawn * (most - least) + least, "t -> 1 1 t 1 1")
        return s * self.array(self.noise.normal(z.shape, chunk=block, use=f"{use} noise")) + (1 - s) * z


def begin(
    helios,
    empty: History,
    *,
    image=None,
    video=None,
    latent=None,
    encode: Callable | None = None,
    posterior: str = POSTERIORS[0],
    noise_sigma: tuple[float, float] = SIGMA,
    video_noise_sigma: tuple[float, float] | None = None,
    seed: int = 0,
    noise=None,
) -> History:
    """`empty` filled from one of image, video, latent; none of them leaves it as it is.

    image [1 h w 3], video [f h w 3]: uint8, or floats from 0 to 1. Other sizes are cropped about the centre to the
    history's proportions and resized. latent [b c t h w]: normalised, whole chunks; no noise is mixed in.
    encode: frames [f h w 3] -> raw mean and std (or None), the model's own VAE if left open. posterior: a draw
    ("sample", as published) or "mean". noise_sigma: least and most noise of the anchor; video_noise_sigma: that of the
    past, the same if left open; (0, 0) is none. noise: draws for tests, else those of the seed. ValueError for
    whatever does not fit, before anything is loaded.
    """
    wired = [name for name, value in (("image", image), ("video", video), ("latent", latent)) if value is not None]
    if len(wired) > 1:
        raise ValueError(f"a video starts from one thing; given are {' and '.join(wired)}: leave one")
    if posterior not in POSTERIORS:
        raise ValueError(f"posterior {posterior!r}: wanted {' or '.join(POSTERIORS)}")
    anchor_sigma, past_sigma = check_sigma(noise_sigma), check_sigma(video_noise_sigma or noise_sigma)
    if latent is not None:
        return from_latent(empty, latent, helios.config.defaults.chunk_latent_frames, helios.backend.array)
    if not wired:
        return empty
    source = noise or Noise(seed)
    encoder = make_encoder(helios, empty, encode, noise=source, sample=posterior == "sample")
    if image is not None:
        return from_image(empty, check_image(image), encoder, anchor_sigma, past_sigma)
    return from_video(empty, check_video(video, encoder.frames), encoder, anchor_sigma, past_sigma)


def make_encoder(helios, empty: History, encode, **rest) -> PictureEncoder:
    """The model's own VAE, or `encode`; the user can stop it between two blocks."""
    scale = helios.config.vae.scale_factor_spatial
    _, c, h, w = empty.shape

    def checked(frames):
        helios.parts.host.stop()
        vae = None if encode else helios.parts.ready("vae", w * scale, h * scale)
        mean, std = encode(frames) if encode else helios.backend.encode(vae, frames)
        # Of another VAE they may be torch's, whatever the backend.
        mean, std = (x if x is None else helios.backend.array(x) for x in (mean, std))
        wanted = (1, c, (len(frames) - 1) // helios.config.vae.scale_factor_temporal + 1, h, w)
        if tuple(mean.shape) != wanted:
            raise ValueError(
                f"vae: it made latents {list(mean.shape)} of {len(frames)} frames, this model takes {list(wanted)}; "
                "it is the VAE of another model: leave the input open to use the model's own"
            )
        if not all(bool(helios.backend.all_finite(x)) for x in (mean, std) if x is not None):
            raise ValueError("vae: the latents of the picture hold NaN or infinity; run the VAE in fp32")
        return mean, std

    return PictureEncoder(
        lambda frames: helios.backend.fit(frames, w * scale, h * scale),
        checked,
        helios.normalise,
        helios.backend.array,
        frames=helios.config.frames_per_chunk,
        latent_frames=helios.config.defaults.chunk_latent_frames,
        **rest,
    )


def check_sigma(sigma) -> tuple[float, float]:
    """(least, most) as given. ValueError unless 0 <= least <= most <= 1."""
    least, most = sigma
    if not 0 <= least <= most <= 1:
        raise ValueError(f"noise sigma from {least} to {most}: wanted 0 <= least <= most <= 1; 0 and 0 is no noise")
    return least, most


def check_frames(frames, name: str):
    """RGB of [f h w c]. ValueError for another shape."""
    shape = tuple(frames.shape)
    if len(shape) != 4 or shape[3] < 3 or 0 in shape:
        raise ValueError(f"{name}: wanted pictures [frames, height, width, 3], got {list(shape)}")
    return frames[..., :3]


def check_image(image):
    """Frames [1 h w 3], as `check_frames` has them. ValueError for more than one picture."""
    frames = check_frames(image, "image")
    if len(frames) != 1:
        raise ValueError(f"image: wanted one picture, got {len(frames)}; pictures that follow each other are a video")
    return frames


def check_video(video, least: int):
    """Frames [f h w 3], as `check_frames` has them. ValueError for fewer than `least`."""
    frames = check_frames(video, "video")
    if len(frames) < least:
        raise ValueError(
            f"video: wanted at least {least} frames, one chunk; got {len(frames)}. Give a longer one, or start from an "
            "image"
        )
    return frames


def from_image(empty: History, image, encoder: PictureEncoder, sigma, past_sigma) -> History:
    """Image to video: image [1 h w 3]. Without an anchor (keep_first_frame off) only the past is made."""
    picture, keep = encoder.fit(image), empty.keep_first_frame
    anchor = encoder.latent(picture, "image") if keep else None
    still = rearrange([picture] * encoder.frames, "f 1 h w c -> f h w c")
    last = encoder.latent(still, "still")[:, :, -1:]
    anchor = encoder.corrupt(anchor, sigma, "image") if keep else None
    return replace(empty, window=_join(empty, [encoder.corrupt(last, past_sigma, "still")]), anchor=anchor)


def from_video(empty: History, video, encoder: PictureEncoder, sigma, past_sigma) -> History:
    """Video to video: video [f h w 3], f at least a chunk. Blocks are numbered from the newest, 0."""
    size, keep = encoder.frames, empty.keep_first_frame
    count = min(len(video) // size, -(-empty.window.shape[2] // encoder.latent_frames))
    anchor = encoder.latent(encoder.fit(video[:1]), "video anchor") if keep else None
    blocks = []
    for block in reversed(range(count)):
        end = len(video) - block * size
        blocks.append(encoder.latent(encoder.fit(video[end - size : end]), "video", block))
    anchor = encoder.corrupt(anchor, sigma, "video anchor") if keep else None
    past = [encoder.corrupt(z, past_sigma, "video", count - 1 - i) for i, z in enumerate(blocks)]
    return replace(empty, window=_join(empty, past), anchor=anchor)


def _join(empty: History, past: list):
    """The window with `past` at its newest end; exact zeros before it."""
    return pack([empty.window, *past], "b c * h w")[0][:, :, -empty.window.shape[2] :]


def from_latent(empty: History, latent, chunk_frames: int, array: Callable) -> History:
    """As if latent [b c t h w] had just been sampled, chunk by chunk: anchor and chunk number included.

    ValueError for another size, and for parts of chunks.
    """
    shape, (_, c, h, w) = tuple(latent.shape), empty.shape
    if len(shape) != 5 or 0 in shape or shape[1:2] + shape[3:] != (c, h, w) or shape[2] % chunk_frames:
        raise ValueError(
            f"latent: wanted [batch, {c}, frames, {h}, {w}], frames a multiple of {chunk_frames} (whole chunks, each "
            f"encoded or sampled on its own); got {list(shape)}. Give the size it was made with, or start from a video"
        )
    window, latent = array(np.zeros((shape[0], c, empty.window.shape[2], h, w), dtype=np.float32)), array(latent)
    history = replace(empty, window=window)
    for first in range(0, shape[2], chunk_frames):
        history = history.append(latent[:, :, first : first + chunk_frames])
    return history
