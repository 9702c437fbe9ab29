"""What is done to a whole parameter, float32 and in the published layout; arithmetic only, on any library's arrays.

An edit is called with the value and array, which makes a numpy array the library's, where the value is. Its kind is a
name and its values are arrays and plain numbers, so that it can be kept, moved and compared.
"""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """kind: of EDITS; values: what it takes."""

    kind: str
    values: tuple

    def __call__(self, value, array):
        """The new value; value itself is not written to."""
        return EDITS[self.kind](value, array, *self.values)


def add(value, array, delta):
    """value + delta."""
    return value + array(delta, value)


def blend(value, array, new, strength: float):
    """value at strength 0, new at strength 1."""
    new = array(new, value)
    return new if strength == 1 else value + strength * (new - value)


def product(value, array, down, up, scale: float = 1.0):
    """value + scale * up @ down, for a matrix or the kernel of a convolution."""
    down, up = (array(x.reshape(len(x), -1), value) for x in (down, up))
    return value + (up @ down).reshape(value.shape) * scale


def hadamard(value, array, a1, b1, a2, b2, scale: float):
    """value + scale * (a1 @ b1) * (a2 @ b2)."""
    a1, b1, a2, b2 = (array(x, value) for x in (a1, b1, a2, b2))
    return value + ((a1 @ b1) * (a2 @ b2)).reshape(value.shape) * scale


def kronecker(value, array, w1, w2, scale: float):
    """value + scale * kron(w1, w2)."""
    w1, w2 = (array(x, value) for x in (w1, w2))
    return value + (w1[:, None, :, None] * w2[None, :, None, :]).reshape(value.shape) * scale


def decompose(value, array, magnitude, strength: float, kind: str, *values):
    """DoRA (arXiv:2402.09353): the changed weight's rows, or its columns, get lengths of their own.

    magnitude [o 1] for rows or [1 i] for columns, an input channel's with all of a kernel. At strength 0 it is value.
    """
    new, magnitude = EDITS[kind](value, array, *values), array(magnitude, value)
    if magnitude.shape[1] == 1:
        flat = new.reshape(len(new), -1)
        flat = flat * (magnitude / ((flat * flat).sum(1)[:, None] ** 0.5 + EPS))
    else:
        flat = new.reshape(len(new), magnitude.shape[1], -1)
        length = (flat * flat).sum(2).sum(0)[:, None] ** 0.5 + EPS
        flat = flat * (magnitude.reshape(-1, 1) / length)
    return value + strength * (flat.reshape(value.shape) - value)


EPS = 2.0**-23  # as LyCORIS has it
EDITS = {
    "add": add,
    "blend": blend,
    "product": product,
    "hadamard": hadamard,
    "kronecker": kronecker,
    "decompose": decompose,
}
