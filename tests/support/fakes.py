"""A stand-in for the core's Helios with the real configs, quick and without weights."""

from __future__ import annotations

import zlib
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from helios_video.helios_core.backends.torch import load
from helios_video.helios_core.config.model import ModelConfig, SamplingDefaults, TransformerConfig, VAEConfig
from helios_video.helios_core.noise import Noise
from helios_video.helios_core.pipeline import Helios, check_start
from helios_video.helios_core.steps.denoise import plan_chunk
from helios_video.helios_core.text import Embedding

TEXT_DIM = 24


class FakeVAE:
    """Repeats latents as pixels: 1 + 4(t - 1) frames, eight times the size, the first three channels as colours."""

    device, dtype = "cpu", torch.float32

    def decode(self, z):
        frames = z[:, :3].repeat_interleave(8, 3).repeat_interleave(8, 4)
        return frames.repeat_interleave(4, 2)[:, :, 3:].clamp(-1, 1)

    def stream(self, z):
        whole = self.decode(z)
        yield whole[:, :, :1]
        for i in range(1, whole.shape[2], 4):
            yield whole[:, :, i : i + 4]

    def decode_tiled(self, z, *, tile, overlap):
        self.tiles = (tile, overlap)
        return self.decode(z)

    def encode(self, frames):
        small = frames[:, :, ::4, ::8, ::8].repeat_interleave(6, 1)[:, :16]
        return small, small * 0 - 30


def to_pixels(frames):
    return ((frames[0].movedim(0, -1) + 1) * 127.5).round().byte().numpy()


def arrays():
    """What of the torch backend needs no weights."""
    return {name: getattr(load, name) for name in ("array", "to_cpu", "to_device", "fit", "encode", "all_finite")}


class FakeHost:
    """Stops nobody and hears everything."""

    manages = False

    def stop(self):
        pass

    def loading(self, nbytes):
        pass


class FakeHelios:
    """What the nodes use of pipeline.Helios. `sample` gives white noise plus the text's mean."""

    def __init__(self):
        transformer = TransformerConfig(num_attention_heads=2, attention_head_dim=128, text_dim=TEXT_DIM, num_layers=1)
        vae = VAEConfig(latents_mean=(0.5,) * 16, latents_std=(2.0,) * 16)
        self.config = ModelConfig(transformer=transformer, vae=vae, defaults=SamplingDefaults(width=64, height=128))
        self.vae, self.host, self.calls = FakeVAE(), FakeHost(), []
        self.parts, self.library, self.identity, self.vae_identity = self, "torch", ("fake",), ("fake",)
        self.embeddings, self.controls = SimpleNamespace(key="fake"), ()
        self.backend = SimpleNamespace(
            decode_blocks=lambda vae, z: vae.stream(z),
            stream_pixels=lambda blocks: map(to_pixels, blocks),
            inference=nullcontext,
        )
        self.backend.__dict__.update(arrays())

    def control_identity(self, chunk):
        return ()

    def needs(self, width=0, height=0):
        return []

    def estimate(self, *size):
        return SimpleNamespace(device=lambda mode: 0)

    def pixels(self, latent):
        return latent.shape[-1] * 8, latent.shape[-2] * 8

    def ready(self, name, width=0, height=0, batch=1):
        return getattr(self, name)

    def decode(self, latent):
        return to_pixels(self.vae.decode(self.denormalise(latent)))

    def text(self, text):
        rows, generator = len(text.split()) + 1, torch.Generator().manual_seed(zlib.crc32(text.encode()))
        out = torch.zeros(1, 512, TEXT_DIM)
        out[:, :rows] = torch.randn(1, rows, TEXT_DIM, generator=generator)
        return Embedding.of(out)

    def history(self, *size, **options):
        return Helios.history(self, *size, **options)

    def sample(self, history, positive, **options):
        self.calls.append({"history": history, "positive": positive, **options})
        if options.get("start") is not None:
            check_start(options["start"], Helios.coarsest(self, history), self.config.schedule.stages)
        b, c, h, w = history.shape
        drawn = Noise(options["seed"]).normal((b, c, 9, h, w), chunk=history.chunk)
        z = torch.from_numpy(drawn) + positive.padded.mean()
        plan = {key: value for key, value in options.items() if key in plan_chunk.__kwdefaults__}
        total = plan_chunk(self.config, history.chunk, **plan).total
        for index in range(total):
            self.host.stop()
            yield SimpleNamespace(chunk=history.chunk, stage=index, index=index, total=total, latent=z, x0=z)

    def normalise(self, z):
        return (z - 0.5) / 2.0

    def denormalise(self, z):
        return z * 2.0 + 0.5
