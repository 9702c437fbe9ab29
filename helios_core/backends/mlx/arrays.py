"""numpy's and torch's arrays into MLX's."""

from __future__ import annotations

import mlx.core as mx


def to_array(values) -> mx.array:
    """numpy, torch (on any device) or MLX -> float32. Torch is not imported: a tensor brings it along."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return values.astype(mx.float32) if isinstance(values, mx.array) else mx.array(values).astype(mx.float32)
