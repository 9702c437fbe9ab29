"""Sizes of a Unified Latents model (arXiv 2602.17270), and the latent space that it speaks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil

from ..config import FromDict

PARTS = ("encoder", "prior", "decoder", "base")


@dataclass(frozen=True)
class ULConfig(FromDict):
    """One model; the defaults are the paper's for images: 512x512 pixels <-> 32 channels of 32x32.

    stride: frames and pixels to a latent. causal: a clip's first latent is one frame, so 1 + 4n frames <-> 1 + n
    latents, as Wan's VAE has it; the networks then see that frame `stride` times. *_channels and *_blocks: per level,
    the finest first; a decoder's last level and all of prior and base are transformers. window: latents to a side of
    the attention in the decoder; 0: whole frames. with_pixels: the decoder may be shown another decoder's frames, which
    are wrong by pixel_error (root mean square, of values in [-1, 1]). logsnr_x, logsnr_z: (least, most); most of z is
    the noise that z_0 always has. space: name of the latents, latents_mean and latents_std of their raw channels.
    ValueError for sizes that do not fit together.
    """

    kind = "ul"
    latent_channels: int = 32
    stride: tuple[int, int] = (1, 16)
    causal: bool = False
    patch: int = 2
    encoder_channels: tuple[int, ...] = (128, 256, 512, 512)
    encoder_blocks: tuple[int, ...] = (2, 2, 2, 3)
    decoder_channels: tuple[int, ...] = (128, 256, 512, 1024)
    decoder_blocks: tuple[int, ...] = (2, 2, 2, 8)
    prior_channels: tuple[int, ...] = (1024,)
    prior_blocks: tuple[int, ...] = (8,)
    base_channels: tuple[int, ...] = (512, 1024)
    base_blocks: tuple[int, ...] = (6, 16)
    head_dim: int = 64
    window: int = 0
    dropout: float = 0.1
    with_pixels: bool = False
    pixel_error: float = 0.1
    logsnr_x: tuple[float, float] = (-10.0, 8.0)
    logsnr_z: tuple[float, float] = (-10.0, 5.0)
    space: str = "ul"
    latents_mean: tuple[float, ...] = ()
    latents_std: tuple[float, ...] = ()

    def __post_init__(self):
        for part in PARTS:
            channels, blocks = self.sizes(part)
            if len(channels) != len(blocks):
                raise ValueError(f"ul config: {part}_channels {channels} and {part}_blocks {blocks} differ in length")
            inner = channels if part in ("prior", "base") else channels[-1:] if part == "decoder" else ()
            if odd := [c for c in inner if c % self.head_dim]:
                raise ValueError(f"ul config: {part}_channels {odd} must be multiples of head_dim {self.head_dim}")
        for part in ("encoder", "decoder"):
            made = self.patch * 2 ** (len(self.sizes(part)[0]) - 1)
            if made != self.stride[1]:
                raise ValueError(f"ul config: {part}_channels make a stride of {made} pixels, not {self.stride[1]}")
        if self.head_dim % 4 or self.head_dim < 8:
            raise ValueError(f"ul config: head_dim {self.head_dim} must be a multiple of 4, at least 8")
        for name in ("latents_mean", "latents_std"):
            if len(getattr(self, name)) not in (0, self.latent_channels):
                raise ValueError(f"ul config: {name} must hold {self.latent_channels} numbers, or none")

    def sizes(self, part: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Channels and blocks per level."""
        return getattr(self, f"{part}_channels"), getattr(self, f"{part}_blocks")

    @property
    def noise(self) -> float:
        """The level of z_0, lambda_z(0)."""
        return self.logsnr_z[1]

    @property
    def rope_dim(self) -> tuple[int, int, int]:
        """Channels of a head that tell frame, row and column."""
        side = self.head_dim // 3 // 2 * 2
        return self.head_dim - 2 * side, side, side

    @property
    def reach(self) -> int:
        """Latents around a window that the decoder's convolutions look at, on the way down as on the way up."""
        steps = [2 * n * self.patch * 2**level for level, n in enumerate(self.decoder_blocks[:-1])]
        return ceil((self.patch + sum(steps)) / self.stride[1]) + 1

    def latents(self, frames: int) -> int:
        """Latent frames of that many frames. ValueError if they do not fit the stride."""
        time = self.stride[0]
        if frames < 1 or (frames + time - 1 if self.causal else frames) % time:
            raise ValueError(f"{frames} frames: wanted {'1 + ' if self.hidden else ''}a multiple of {time}")
        return (frames + time - 1) // time if self.causal else frames // time

    def frames(self, latents: int) -> int:
        """Frames of that many latents."""
        return latents * self.stride[0] - self.hidden

    @property
    def hidden(self) -> int:
        """Copies of a causal clip's first frame that only the networks see."""
        return self.stride[0] - 1 if self.causal else 0

    def to_dict(self) -> dict:
        """All fields, as `from_dict` takes them."""
        return asdict(self)
