"""Blocks that keep their input alone for the way back, and are computed again there."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...backends.torch import compiled


def run(block: nn.Module, *args):
    """A block as it is where nothing is learnt, as in a sample; else kept by its inputs."""
    if not torch.is_grad_enabled():
        return compiled.run(block, *args)
    return checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False)


def checkpoint_blocks(model: nn.Module) -> None:
    """Has a loaded transformer run its blocks so."""
    model.run = run
