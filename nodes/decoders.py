"""What a decoder is, so that frames it decoded are found again: the pack's say it, ComfyUI's are known by weights."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from . import core, engine_digest


def identity(vae) -> tuple | None:
    """What decoded frames depend on beside the latents, in another session too; None where nobody can tell.

    A VAE of HeliosLoader, and a UL decoder, say it themselves; ComfyUI's own is known by its weights.
    """
    if hasattr(vae, "identity"):
        return vae.identity
    network, patcher = getattr(vae, "first_stage_model", None), getattr(vae, "patcher", None)
    changed = "decode" in vars(vae) or "decode_tiled" in vars(vae)  # by another pack, to what it alone knows
    if patcher is None or not hasattr(network, "state_dict") or changed or patcher.object_patches:
        return None
    if network not in _WEIGHTS:
        _WEIGHTS[network] = weights_digest(network)
    kinds = type(vae).__qualname__, type(network).__qualname__, str(vae.vae_dtype), vae.device.type
    return "ComfyUI", *kinds, _WEIGHTS[network], engine_digest.patches_digest(patcher)


_WEIGHTS: WeakKeyDictionary = WeakKeyDictionary()  # a network -> weights_digest of it


def weights_digest(network) -> str:
    """A text that is the same for the same names, types, shapes and numbers; about 1.5 GB a second."""
    import torch

    def plain(tensor):
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # numpy knows no bf16 and no fp8
        return str(tensor.dtype), tuple(tensor.shape), flat

    return core.disk.digest([(name, *plain(tensor)) for name, tensor in network.state_dict().items()])
