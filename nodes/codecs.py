"""Any VAE of the socket as measure/probe.py's Codec: the pack's own, or ComfyUI's around any network."""

from __future__ import annotations

import numpy as np

from . import sockets


def codec(vae, width: int, height: int):
    """For pictures of about that size. ValueError for a VAE that is not of pictures."""
    from ..helios_core.measure import open_codec

    if isinstance(vae, sockets.VAESocket):
        return open_codec(vae.helios, vae.ready(width, height))
    return _comfy_codec(vae)


def _comfy_codec(vae):
    """ComfyUI loads and moves the network in its own encode and decode; the derivative is of the network itself."""
    import torch

    from ..helios_core.backends.torch.gradient import own_copy, pull
    from ..helios_core.measure import Codec

    model = getattr(vae, "first_stage_model", None)
    if model is None or getattr(vae, "latent_dim", 2) not in (2, 3) or getattr(vae, "output_channels", 3) != 3:
        raise ValueError(f"vae: wanted a VAE of pictures or videos, got {type(vae).__name__}; an audio VAE has none")
    flat = vae.latent_dim == 2
    dark, light = vae.process_output(torch.tensor([0.25, 0.5])).tolist()
    gain = 2 * (light - dark) / 0.25  # most networks' pixels are from -1 to 1, some from 0 to 1
    network = []  # copied when first needed: encoding has put it on its device by then

    def encode(frames):
        images = torch.from_numpy((np.moveaxis(frames[0], 0, -1) + 1) / 2)
        with Moments(model) as moments:
            mean = vae.encode(images)
        return _five(mean, flat), moments.logvar(mean, lambda x: _five(x, flat))

    def decode(z):
        images = vae.decode(_own_shape(torch.from_numpy(z), flat)).float().cpu().numpy()
        images = images if images.ndim == 5 else images[None]
        return np.moveaxis(images[..., :3], -1, 1) * 2 - 1

    def pull_back(z, draw):
        network[:] = network or [own_copy(model)]
        like = next(network[0].parameters())
        there = torch.from_numpy(z).to(like)
        found = pull(lambda x: _five_frames(network[0].decode(_own_shape(x, flat)), flat), there, draw)
        return [gain * g for g in found]

    time = 1 if flat else vae.temporal_compression_decode() or 1
    return Codec(encode, decode, pull_back, time, vae.spacial_compression_decode())


def _five(z, flat: bool) -> np.ndarray:
    """ComfyUI's latents -> [1 c t h w]; a picture VAE's batch is time."""
    z = z.movedim(0, 1)[None] if flat else z
    return np.ascontiguousarray(z.float().cpu().numpy())


def _five_frames(x, flat: bool):
    return x.movedim(0, 1)[None] if flat else x


def _own_shape(z, flat: bool):
    """[1 c t h w] -> ComfyUI's latents."""
    return z[0].movedim(1, 0) if flat else z


class Moments:
    """While inside, keeps what a network computes of its posterior: mean and log variance in one tensor."""

    PLACES = ("regularization", "quant_conv", "conv1")  # a layer that takes or gives it: most VAEs', and Wan's

    def __init__(self, model):
        self.found, self.hook = [], None
        name = next((n for n in self.PLACES if getattr(model, n, None) is not None), None)
        if name:
            keep = lambda _, given, gave: self.found.append(given[0] if name == self.PLACES[0] else gave)  # noqa: E731
            self.hook = getattr(model, name).register_forward_hook(keep)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.hook:
            self.hook.remove()

    def logvar(self, mean, shape):
        """The log variance as shape(it), or None if what was kept is no posterior of this mean."""
        import torch

        halves = torch.cat(self.found).chunk(2, dim=1) if self.found and self.found[0].ndim == mean.ndim else ()
        if len(halves) != 2 or halves[0].shape != mean.shape or not torch.allclose(halves[0].float().cpu(), mean.cpu()):
            return None
        return shape(halves[1].float().clamp(-30, 20))
