"""The VAE as ComfyUI's own object, where it is of the published width: its engine moves it, its nodes know it."""

from __future__ import annotations

from ..helios_core.backends.torch.files import Files
from ..helios_core.backends.torch.load import CPU, DTYPES
from ..helios_core.checkpoint import names
from ..helios_core.config import VAEConfig

ARCHITECTURE = ("z_dim", "dim_mult", "num_res_blocks", "temperal_downsample")  # what ComfyUI takes for granted


def known(config: VAEConfig) -> bool:
    """Whether ComfyUI builds a VAE of that architecture and width."""
    own = VAEConfig()
    return all(getattr(config, name) == getattr(own, name) for name in (*ARCHITECTURE, "base_dim"))


def open_vae(helios):
    """ComfyUI's VAE of a pipeline's files. `identity`: what decoded frames depend on beside the latents; `tiled`:
    whether the user wants tiles in any case."""
    from comfy.sd import VAE

    source, parts = helios.checkpoint.sources["vae"], helios.parts
    files, dtype = Files(), DTYPES[parts.vae_dtype]
    state = {own: files.read(source.tensors[name], dtype, CPU) for name, own in names.wan_names(source.tensors).items()}
    vae = VAE(sd=state, dtype=dtype)
    vae.throw_exception_if_invalid()
    vae.identity = (*parts.vae_identity, "ComfyUI")
    vae.tiled = parts.choices.vae_tiling == "on"
    vae.patcher.cached_patcher_init = (open_patcher, (helios,))
    return vae


def open_patcher(helios, disable_dynamic: bool = False):
    """Its ModelPatcher, opened anew, as ComfyUI asks for one on another device."""
    return open_vae(helios).patcher


def encode(vae, frames):
    """Mean and standard deviation of raw latents [1 c t h w] of frames [f h w 3], 0 to 1; None for the second where the
    VAE is not one of Wan's. ComfyUI's VAE gives the mean alone: the rest is seen as its last layer computes it."""
    last, seen = getattr(getattr(vae, "first_stage_model", None), "conv1", None), []
    if last is None:
        return vae.encode(frames).float().cpu(), None
    hook = last.register_forward_hook(lambda module, given, made: seen.append(made))
    try:
        mean = vae.encode(frames).float().cpu()
    finally:
        hook.remove()
    deviations = [(made.chunk(2, dim=1)[1].float() / 2).exp().cpu() for made in seen]
    whole = len(deviations) == 1 and deviations[0].shape == mean.shape
    return mean, deviations[0] if whole else None
