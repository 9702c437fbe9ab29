"""The number format of a training step."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@contextmanager
def mixed_precision(device, *, on: bool = True):
    """bfloat16 where it is safe; on a CPU torch's fused attention is slow backwards at small sizes, so not there.

    on: else only the latter.
    """
    where = torch.device(device).type
    kernels = sdpa_kernel([SDPBackend.MATH] if where == "cpu" else FUSED)
    with torch.autocast(where, torch.bfloat16, enabled=on), kernels:
        yield
