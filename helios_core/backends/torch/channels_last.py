"""Convolutions' weights in the order of channels that tensor cores read: activations follow, and nothing is copied.

Of 3-D convolutions in half precision laid out plainly, cuDNN 9.8 to 9.14 computes some wrongly; torch 2.9 passes cuDNN
over for those, 2.9.0 with any later cuDNN too, and unfolds the input: 17 times the memory and 10 to 20 times the time
(pytorch issues 163539, 166643, 174051). Channels last, none of that holds: cuDNN computes them in any of these.
"""

from __future__ import annotations

import torch
from torch import nn

FORMATS = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}


def wanted(device, dtype: torch.dtype) -> bool:
    """Whether it is of use: on CUDA, in half precision."""
    return torch.device(device).type == "cuda" and dtype in (torch.bfloat16, torch.float16)


@torch.inference_mode(False)
def lay_out(model: nn.Module) -> nn.Module:
    """Reorders the weights of all convolutions of a loaded model, in place."""
    for layer in model.modules():
        for kind, order in FORMATS.items():
            if isinstance(layer, kind):
                layer.weight.data = layer.weight.data.to(memory_format=order)
    return model
