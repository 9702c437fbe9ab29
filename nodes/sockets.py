"""Socket names, and the conversions at the door: LATENT, CONDITIONING, IMAGE, VAE <-> what the core takes.

A LATENT of chunk latents is in raw VAE space, [b 16 t h/8 w/8] float32 on the CPU, as ComfyUI's Wan nodes have it;
the core's is (raw - mean) / std. Noise is in the core's space already and passes through as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import core
from .unmoved import Unmoved

MODEL = "MODEL"
TEXT_ENCODER = "CLIP"
HISTORY = "HELIOS_HISTORY"
CLIP = "HELIOS_CLIP"
LEVELS = "HELIOS_LEVELS"
PLOTTED = "HELIOS_LEVELS,LATENT"
DECODER = "VAE,UL_DECODER"
LOOP = "HELIOS_LOOP"
MAX_SEED = 2**64 - 1


class Anything(str):
    """A socket type for any wire: ComfyUI compares types with !=, and knows no wildcard besides."""

    def __ne__(self, other) -> bool:
        return False


ANY = Anything("*")


@dataclass(frozen=True, eq=False, repr=False)  # ComfyUI puts the text of a failing node's inputs into its report
class HistorySocket:
    """HELIOS_HISTORY: the core's history, and what of its model is needed beside: not the model, which is large.

    chunk_frames: latent frames of a chunk. vae: its configuration. array: numpy -> the backend's arrays. given: what a
    score said of the newest chunk (text.Direction), for AntiDrift.
    """

    history: Any
    chunk_frames: int
    vae: Any
    array: Callable
    given: Any = None

    @classmethod
    def of(cls, history, model) -> HistorySocket:
        """The memory of a history of that model."""
        return cls(history, model.config.defaults.chunk_latent_frames, model.config.vae, model.backend.array)

    def append(self, chunk, given=None) -> HistorySocket:
        """The memory after a chunk of normalised latents, which a score directed so."""
        return replace(self, history=self.history.append(chunk), given=given)

    def _comfy_cache_tensors(self) -> list:
        """What it keeps in memory: ComfyUI's cache (0.38) weighs outputs by that when memory is short."""
        return [value for value in vars(self.history).values() if hasattr(value, "untyped_storage")]

    def raw(self, z):
        """Normalised latents -> raw VAE space, as Helios.denormalise has it."""
        return tensor(core.decode.denormalise(z, self.vae, self.array))


def tensor(x):
    """An evaluated float32 array of any backend -> float32 torch tensor on the CPU; MLX's shares its memory."""
    import torch

    return x.float().cpu() if isinstance(x, torch.Tensor) else torch.from_numpy(np.asarray(x))


def samples(latent, name: str, *, channels: int | None = None):
    """The float32 tensor [b c t h w] of a LATENT, unconverted. ValueError names the input, `name`."""
    if not isinstance(latent, dict) or "samples" not in latent:
        raise ValueError(f"{name}: wanted a LATENT, a dict with 'samples'; got {type(latent).__name__}")
    z = latent["samples"]
    wanted = f"[batch, {channels or 'channels'}, frames, height / 8, width / 8]"
    if z.ndim != 5 or 0 in z.shape or channels not in (None, z.shape[1]):
        raise ValueError(f"{name}: wanted a video latent {wanted}, got {list(z.shape)}; is it of another model?")
    return z.float()


def levels(value, name: str) -> tuple:
    """Arrays [b c t h w], finest first, of a HELIOS_LEVELS, or the one of a LATENT."""
    return value.arrays if hasattr(value, "arrays") else (samples(value, name),)


def conditioning(embedding, prompt: str, schedule=None) -> list:
    """CONDITIONING of a prompt's Embedding, padded. schedule: text.Schedule, whose first prompt that is."""
    return [[embedding.padded, {"helios_prompt": prompt, **({"helios_schedule": schedule} if schedule else {})}]]


def embedding(value, name: str, *, width: int, chunk: int = 0, live=None):
    """The Embedding of a CONDITIONING for a chunk. live: the schedule that counts in its place, if there is one.

    ValueError unless it is one text of the model's width.
    """
    if not value or len(value) != 1:
        raise ValueError(f"{name}: wanted one text, got {len(value or [])} in the CONDITIONING; do not combine them")
    tensor, more = value[0]
    schedule = more.get("helios_schedule")
    if schedule is not None and tensor is not schedule.embedding(0).padded:
        raise ValueError(f"{name}: another node changed what HeliosPromptSchedule gave; wire it straight in")
    if tensor.ndim != 3 or tensor.shape[2] != width:
        raise ValueError(
            f"{name}: this model takes text [batch, tokens, {width}], got {list(tensor.shape)}. Use T5Encode with this "
            "checkpoint's text encoder, or CLIPTextEncode with a umt5-xxl CLIP for the published checkpoints."
        )
    return core.text.Embedding.of(tensor.float()) if schedule is None else (live or schedule).embedding(chunk)


def schedule(value):
    """The text.Schedule of a CONDITIONING from HeliosPromptSchedule; None of others."""
    return value[0][1].get("helios_schedule") if value else None


def scale(model) -> int:
    """Pixels to a latent along height and width."""
    return model.config.vae.scale_factor_spatial


def encoder(vae):
    """A VAE as the core takes it: frames [f h w 3] -> raw mean and std [1 c t h w]; std None of VAEs but Wan's."""
    if vae is None:
        return None
    if isinstance(vae, VAESocket):
        return lambda frames: vae.helios.backend.encode(vae.ready(frames.shape[2], frames.shape[1]), frames)
    from .engine_vae import encode

    return lambda frames: encode(vae, tensor(frames))


def image_blocks(images, size: int = 16):
    """IMAGE [f h w c], values 0 to 1 -> blocks of uint8 frames [<= size, h, w, 3]. ValueError for other shapes."""
    from ..helios_core.join import to_uint8

    if images.ndim != 4 or images.shape[3] < 3 or not len(images):
        raise ValueError(f"images: wanted IMAGE [frames, height, width, 3], got {list(images.shape)}")
    for i in range(0, len(images), size):
        yield to_uint8(images[i : i + size, ..., :3])


class VAESocket:
    """VAE: ComfyUI's VAE interface around the core's Wan VAE, for core VAEDecode, VAEEncode and their tiled forms."""

    device = None  # its patcher's
    latent_channels = 16
    latent_dim = 3
    output_channels = 3

    def __init__(self, helios):
        self.helios = helios
        self.latent_channels = helios.config.vae.z_dim

    def decode(self, samples_in, vae_options=None):
        """Raw latents [b 16 t h w] -> frames [b f 8h 8w 3], 0 to 1, float32 on the CPU."""
        import torch

        vae = self.ready(*self.helios.pixels(samples_in), len(samples_in))
        blocks = self.helios.backend.decode_blocks(vae, samples_in)
        return torch.cat([self._images(block) for block in blocks], dim=1)

    def decode_tiled(self, samples_in, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None):
        """As decode, in tiles of latents; time is not tiled, since decoding streams through it anyway."""
        tile, overlap = (tile_y or 32, tile_x or 32), 8 if overlap is None else overlap
        scale, backend = self.spacial_compression_decode(), self.helios.backend
        vae = self.ready(tile[1] * scale, tile[0] * scale, len(samples_in))
        with backend.inference():
            return self._images(vae.decode_tiled(backend.to_device(vae, samples_in), tile=tile, overlap=overlap))

    def blocks(self, samples_in, first: int = 0):
        """Raw latents [1 16 t h w] -> blocks of uint8 frames [f 8h 8w 3] as they come; first: not needed here."""
        backend = self.helios.backend
        vae = self.ready(*self.helios.pixels(samples_in))
        yield from backend.stream_pixels(backend.decode_blocks(vae, samples_in))

    def encode(self, pixels, not_video=None):
        """IMAGE [f h w c] or [b f h w c], 0 to 1 -> raw latents [b 16 (f-1)/4+1 h/8 w/8]; not_video: [f 16 1 h/8 w/8].

        As ComfyUI's own VAE does it: sizes are cropped about the centre to multiples of 8, frames cut to 1 + 4n.
        ValueError for other shapes.
        """
        frames = pixels[..., :3]
        if pixels.ndim < 5:
            frames = frames[:, None] if not_video else frames[None]
        config = self.helios.config.vae
        h, w = (n // config.scale_factor_spatial * config.scale_factor_spatial for n in frames.shape[2:4])
        f = (frames.shape[1] - 1) // config.scale_factor_temporal * config.scale_factor_temporal + 1
        if not h or not w:
            raise ValueError(f"pixels: {frames.shape[3]}x{frames.shape[2]} is too small to encode; 8x8 is the least")
        top, left = (frames.shape[2] - h) // 2, (frames.shape[3] - w) // 2
        frames = frames[:, :f, top : top + h, left : left + w].movedim(-1, 1)
        backend = self.helios.backend
        with backend.inference():
            vae = self.ready(frames.shape[-1], frames.shape[-2], len(frames))
            mean, _ = vae.encode(backend.to_device(vae, frames.float() * 2 - 1))
            return tensor(backend.to_cpu(mean))

    def _patcher(self):
        """ComfyUI's ModelPatcher of it; an Unmoved where it is not loaded, or not ComfyUI's to move."""
        keeper, network = getattr(self.helios.parts.host, "keeper", None), self.helios.parts.loaded.networks.get("vae")
        found = None if keeper is None or network is None else keeper.patchers.get(network)
        return Unmoved("this VAE") if found is None else found

    # Takes none: ComfyUI's Select VAE Device puts one here that it was just given.
    patcher = property(_patcher, lambda self, given: None)

    def is_dynamic(self) -> bool:
        """That its weights come and go, so that dropping this frees nothing."""
        return True

    def get_sd(self) -> dict:
        """Its tensors by their published names, for VAE Save. ValueError on MLX."""
        vae = self.helios.parts.vae
        if not hasattr(vae, "state_dict"):
            raise ValueError("a VAE on MLX cannot be saved by this node; choose the backend torch in HeliosLoader")
        return vae.state_dict()

    def memory_required(self, shape, *_) -> int:
        """Bytes that decoding latents [b c t h w] takes."""
        width, height = (n * self.spacial_compression_decode() for n in (shape[-1], shape[-2]))
        return self.helios.parts.estimate(width, height).work["vae"] * shape[0]

    memory_used_decode = memory_required

    @property
    def identity(self) -> tuple:
        """What decoded frames depend on beside the latents."""
        return self.helios.parts.vae_identity

    def ready(self, width: int, height: int, batch: int = 1):
        """The core's VAE, about to take or to make frames of that size, of `batch` videos at once."""
        return self.helios.parts.ready("vae", int(width), int(height), batch)

    def _images(self, frames):
        """[b 3 f h w] in [-1, 1], the backend's -> [b f h w 3] in [0, 1], float32 on the CPU."""
        return ((tensor(self.helios.backend.to_cpu(frames)) + 1) / 2).clamp(0, 1).movedim(1, -1)

    def encode_tiled(self, pixels, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None, not_video=None):
        """As encode: it streams through time, and a frame's activations are small beside decoding's."""
        return self.encode(pixels, not_video)

    def spacial_compression_encode(self) -> int:
        """Pixels to a latent, along height and width; the name is ComfyUI's."""
        return self.helios.config.vae.scale_factor_spatial

    def spacial_compression_decode(self) -> int:
        """Pixels to a latent, along height and width; the name is ComfyUI's."""
        return self.helios.config.vae.scale_factor_spatial

    def temporal_compression_decode(self) -> int:
        """Frames to a latent."""
        return self.helios.config.vae.scale_factor_temporal
