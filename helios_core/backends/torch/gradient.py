"""What a VAE's decoder does with small changes of its latents: products with its Jacobian, for measure/probe.py."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def own_copy(model: nn.Module) -> nn.Module:
    """The model itself, or a copy if its weights want gradients or were loaded in inference mode, as nodes load them:
    such weights take no part in gradients."""
    with torch.inference_mode(False):
        plain = not any(p.is_inference() or p.requires_grad for p in model.parameters())
        return model if plain else copy.deepcopy(model).requires_grad_(False)


def pull(decode: Callable, z: torch.Tensor, draw: Callable[[tuple], list[np.ndarray]]) -> list[np.ndarray]:
    """J^T r for every r of draw(shape of decode(z)), each of z's shape; J is the derivative of decode at z.

    z must lie on the device of decode's weights, and these must not be of inference mode (`own_copy`).
    """
    with torch.inference_mode(False), torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        out = decode(z)
        drawn = [torch.as_tensor(r).to(out) for r in draw(tuple(out.shape))]
        found = [torch.autograd.grad(out, z, r, retain_graph=True)[0] for r in drawn]
    return [g.float().cpu().numpy() for g in found]


def pull_vae(vae, z, draw) -> list[np.ndarray]:
    """`pull` of the pack's own VAE, which `own_copy` gave; raw latents [b c t h w], numpy."""
    return pull(lambda x: vae.decode(x, clamp=False), torch.as_tensor(z).to(vae.dtype).to(vae.device), draw)
