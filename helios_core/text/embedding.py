"""What a prompt is to the model: its tokens' rows, and how many rows there are with the padding.

The model was trained on prompts padded with zeros to a fixed number of rows, which it attends to; they are all alike,
so it is enough to carry their number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from einops import pack

from ..resample import like


@dataclass(frozen=True, eq=False)
class Embedding:
    """rows [b n d] float32 of any library: of each prompt its tokens, zeros past its end. length: rows with padding."""

    rows: Any
    length: int

    @classmethod
    def of(cls, values) -> Embedding:
        """An embedding as it is; of an array [b length d] the rows up to the last that is not zero in all prompts."""
        if isinstance(values, Embedding):
            return values
        there = values.detach().float().cpu() if hasattr(values, "detach") else values  # numpy has no bfloat16
        used = np.flatnonzero((np.asarray(there) != 0).any(axis=(0, 2)))
        return cls(values[:, : used[-1] + 1 if len(used) else 0], values.shape[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(batch, length, width)."""
        return self.rows.shape[0], self.length, self.rows.shape[2]

    @cached_property
    def padded(self):
        """[b length d], as other programs hold prompts."""
        return _pad(self.rows, self.length)


def _pad(rows, length: int):
    b, n, d = rows.shape
    if n == length:
        return rows
    return pack([rows, like(np.zeros((b, length - n, d), np.float32), rows)], "b * d")[0]


def mix(shares: Iterable[tuple[Embedding, float]]) -> Embedding:
    """Embeddings of one length, mixed linearly: each rows times its share. One alone stays as it is."""
    shares = list(shares)
    if len(shares) == 1:
        return shares[0][0]
    longest = max(one.rows.shape[1] for one, _ in shares)
    return Embedding(sum(_pad(one.rows, longest) * share for one, share in shares), shares[0][0].length)
