"""What a text encoder takes, in bytes."""

from __future__ import annotations

from math import prod

from ..checkpoint import EMBEDDINGS, Source, held_bytes, is_kept_text, precision

WIDENING = 8  # bytes for each weight of the largest layer that is widened as it computes


def encoder_bytes(source: Source, backend: str, device: str) -> tuple[int, int]:
    """A text encoder's weights, and what it works in: the more the wider it is, and its largest layer as it is widened.

    Torch keeps layers in fewer bits as they are stored, all else is widened. device: its kind.
    """
    computes_in, held, wide, largest = precision.text_format(source), 0, 0, 0
    for name, stored in source.tensors.items():
        item, count = 4 if precision.text_is_float32(name, computes_in) else 2, prod(stored.shape)
        kept = backend == "torch" and is_kept_text(name, stored, device)
        held += held_bytes(stored, stored.kept, item, backend) if kept else count * item
        wide += count * item
        largest = max(largest, count if kept and name not in EMBEDDINGS else 0)
    return held, wide // 40 + WIDENING * largest
