"""A diffusion decoder for the latents of a checkpoint's VAE, which is left as it is (Unified Latents, decoder alone).

It sees the latents at random noise levels, half of the time at the usual one, and, four times in five, the VAE's own
frames: it then learns what these leave out, and starts as good as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from ...backends.torch.ul import UL
from ...drawn import draw, random_scene
from ...ul import ULConfig
from ..crops import Crops, to_frames
from ..files import load_shards
from ..loop import Recipe, fit
from ..tiny import sample_clip
from .loss import diffuse
from .stages import StepDraws, hold_first, initialise

DRAWN = "drawn"
SHARD = 50  # clips in a file
BLIND = 0.2  # share of steps without the VAE's frames
FIRST = 0.4  # share of samples at the level that decoding in one step is done at
NOISE = (1.0, 8.0)  # levels of the latents


@dataclass(frozen=True, eq=False)
class DecoderClips:
    """Clips as uint8 [n t h w 3], the VAE's frames of them, and their normalised latents [n c t h w]."""

    frames: torch.Tensor
    seen: torch.Tensor
    latents: torch.Tensor

    def pick(self, rng: np.random.Generator, count: int):
        """Frames and the VAE's [b 3 f h w] in [-1, 1], latents [b c t h w] float32."""
        chosen = torch.from_numpy(rng.integers(len(self.frames), size=count))
        return (*(to_frames(x[chosen].numpy()) for x in (self.frames, self.seen)), self.latents[chosen].float())


def drawn(number: int, frames: int) -> np.ndarray:
    """The same clip for the same number: shapes as helios-tiny's VAE was trained on, of other seeds."""
    return sample_clip(np.random.default_rng((number, 77)), frames)


def held_out(count: int, frames: int) -> Iterable[np.ndarray]:
    """Clips of captions that no training of helios-tiny shows."""
    rng = np.random.default_rng(99)
    return (draw(random_scene(rng, held_out=True), frames) for _ in range(count))


def make_clips(folder: Path, helios, data: str, *, count: int, size: int, latents: int) -> DecoderClips:
    """Encodes and decodes once; what lies in `folder` is not made again. data: a folder of videos, or drawn."""
    frames = helios.config.vae.scale_factor_temporal * (latents - 1) + 1
    source = None if data == DRAWN else Crops.below(Path(data), size=size, frames=frames)

    def make(index: int) -> dict[str, torch.Tensor]:
        first = index * SHARD
        rng = np.random.default_rng((first, 78))
        numbers = range(first, min(count, first + SHARD))
        return run_vae(helios, (drawn(i, frames) if source is None else source.draw(rng) for i in numbers))

    parts = list(load_shards(folder, "clips", -(-count // SHARD), make))
    return DecoderClips(*(torch.cat([part[name] for part in parts]) for name in ("frames", "seen", "latents")))


@torch.inference_mode()
def run_vae(helios, pictures: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
    """What the VAE makes of clips uint8 [t h w 3]; latents are the posterior's means."""
    found = {"frames": [], "seen": [], "latents": []}
    for picture in pictures:
        z = helios.parts.vae.encode(to_frames(picture[None]).to(helios.parts.vae.device))[0]
        found["frames"].append(torch.from_numpy(picture.copy()))
        found["seen"].append(torch.from_numpy(helios.backend.to_pixels(helios.parts.vae.decode(z))))
        found["latents"].append(helios.normalise(z)[0].half().cpu())
    return {name: torch.stack(values) for name, values in found.items()}


def adapt(config: ULConfig, helios, clips: DecoderClips) -> ULConfig:
    """The sizes of `config` for that checkpoint's latents, with the VAE's error as it was measured."""
    vae = helios.config.vae
    wrong = to_frames(clips.seen[:SHARD].numpy()) - to_frames(clips.frames[:SHARD].numpy())
    wrong = wrong.square().flatten(1).mean(1).median().sqrt()  # few clips are far worse than the rest
    stride = (vae.scale_factor_temporal, vae.scale_factor_spatial)
    return replace(
        config, latent_channels=vae.z_dim, stride=stride, causal=True, with_pixels=True, pixel_error=float(wrong),
        latents_mean=tuple(vae.latents_mean), latents_std=tuple(vae.latents_std),
        space=Path(helios.checkpoint.path).name,
    )  # fmt: skip


def loss_of(model: UL, clips: DecoderClips, batch: int):
    """The loss of a step, as `fit` takes it: errors of v in units of what is left to learn, evenly over all levels."""
    config, device = model.config, next(model.parameters()).device

    def loss(step: int) -> dict:
        draws = StepDraws(step, use=3)
        x, seen, z = (part.to(device) for part in clips.pick(draws.rng, batch))
        x, seen = (hold_first(part, config.hidden) for part in (x, seen))
        pixels = None if draws.rng.random() < BLIND else seen
        level_z = torch.tensor(draws.rng.uniform(*NOISE, batch), dtype=torch.float32)
        level_z = torch.where(torch.rand(batch, generator=draws.torch) < 0.5, config.noise, level_z).to(device)
        level = draws.levels(x, config.logsnr_x)
        first = torch.rand(batch, generator=draws.torch).to(device) < FIRST
        level = torch.where(first, config.logsnr_x[0], level)
        z0 = diffuse(z, draws.like(z), level_z)[0]
        noisy, v = diffuse(x, draws.like(x), level)
        with torch.autocast(torch.device(device).type, torch.bfloat16):  # on a CPU too: half the time
            answer = model.decoder(noisy, z0, level, level_z, pixels)
        scale = model.decoder.around(noisy, level, pixels)[1]
        error = rearrange(((v - answer) / scale) ** 2, "b c t h w -> b (c t h w)").mean(1)
        # an answer of zero has an error of about 1 where the VAE's frames are known, of v's size where they are not
        return {"loss": error.mean()}

    return loss


def train(model: UL, clips: DecoderClips, recipe: Recipe, file: Path, *, batch: int) -> UL:
    """Trains the decoder, from `file` on if it is there; leaves the averaged weights in it."""
    return fit(model, loss_of(model, clips, batch), recipe, file).train(False)


def build(config: ULConfig) -> UL:
    """A decoder whose first answer is the VAE's."""
    torch.manual_seed(0)
    model = UL(config, ("decoder",))
    initialise(model)
    return model
