"""The forms in which LoRA files hold the change of a matrix W [o, i]; kernels are flattened to matrices.

LoRA: up @ down. LoCon: a convolution's, down maybe through a core (`mid`). LoHa (arXiv:2108.06098): (a1 @ b1) times
(a2 @ b2), number by number. LoKr (arXiv:2212.10650): kron(w1, w2), each whole or a @ b. A core t [p q k...] is between
a [p o] and b [q i], as Tucker's. Arrays are numpy's, float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .edits import Edit


class Term(NamedTuple):
    """Roles of the tensors of one matrix: a [o r] and b [r i], maybe a core between them, or the whole."""

    a: str
    b: str
    core: str
    whole: str = ""


KINDS = {
    "LoRA": (Term("up", "down", "mid"),),
    "LoHa": (Term("hada_w1_a", "hada_w1_b", "hada_t1"), Term("hada_w2_a", "hada_w2_b", "hada_t2")),
    "LoKr": (
        Term("lokr_w1_a", "lokr_w1_b", "", "lokr_w1"),
        Term("lokr_w2_a", "lokr_w2_b", "lokr_t2", "lokr_w2"),
    ),
}
ROLES = {role: kind for kind, terms in KINDS.items() for term in terms for role in term if role}


class Size(NamedTuple):
    """Of the matrix that is changed. rank: what alpha is divided by; 0 where there is none."""

    rows: int
    columns: int
    rank: int


def kind_of(roles) -> str | None:
    """The form that a layer's tensors are of; None for none. ValueError for several."""
    kinds = {ROLES[role] for role in roles if role in ROLES}
    if len(kinds) > 1:
        raise ValueError(f"is {' and '.join(sorted(kinds))} at once")
    return kinds.pop() if kinds else None


def lacking(kind: str, roles) -> str | None:
    """The tensor of a form that is not there; None where it is complete."""
    for term in KINDS[kind]:
        if term.whole in roles:
            continue
        if absent := {term.a, term.b} - set(roles):
            return min(absent)
    return "hada_t1 or hada_t2" if ("hada_t1" in roles) != ("hada_t2" in roles) else None


def size_of(kind: str, shapes: dict[str, tuple[int, ...]]) -> Size:
    """From the shapes of a form's tensors. ValueError where they do not fit together."""
    found = [_term_size(kind, term, shapes) for term in KINDS[kind]]
    if kind == "LoHa" and found[0][:2] != found[1][:2]:
        raise ValueError("two products of different sizes")
    rank = next((size.rank for size in (found[::-1] if kind == "LoKr" else found) if size.rank), 0)
    if kind == "LoKr":
        return Size(math.prod(size.rows for size in found), math.prod(size.columns for size in found), rank)
    return Size(found[0].rows, found[0].columns, rank)


def _term_size(kind: str, term: Term, shapes: dict) -> Size:
    if term.whole in shapes:
        if not shapes[term.whole]:
            raise ValueError("no matrices")
        return Size(shapes[term.whole][0], math.prod(shapes[term.whole][1:]), 0)
    a, b, core = (shapes.get(role) for role in term[:3])
    if min(len(a), len(b)) < 2 or not b[0] or (core and len(core) < 2):
        raise ValueError("no matrices")
    a = (a[1], a[0]) if core and kind != "LoRA" else a
    if math.prod(a[2:]) != 1 or (a[1], b[0]) != (core[:2] if core else (b[0], a[1])):
        raise ValueError("ranks differ")
    return Size(a[0], math.prod(b[1:]) * math.prod(core[2:] if core else ()), b[0])


def _factors(kind: str, term: Term, held: dict) -> tuple[np.ndarray, np.ndarray]:
    """a [o r], b [r i] of one matrix; the identity beside a whole one, on its shorter side."""
    if term.whole in held:
        whole = _flat(held[term.whole])
        one = np.eye(min(whole.shape), dtype=np.float32)
        return (one, whole) if len(whole) == len(one) else (whole, one)
    a, b = _flat(held[term.a]), _flat(held[term.b])
    if term.core not in held:
        return a, b
    core = held[term.core]
    b = np.einsum("pqk,qi->pik", core.reshape(*core.shape[:2], -1), b)
    return (a if kind == "LoRA" else np.ascontiguousarray(a.T)), _flat(b)


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def low_rank(kind: str, held: dict) -> tuple[np.ndarray, np.ndarray] | None:
    """down [n i], up [o n] whose product is the change; None where that is larger than the change itself.

    The rank of a LoHa's is the product of its two ranks, that of a LoKr's the product of those of its matrices.
    """
    found = [_factors(kind, term, held) for term in KINDS[kind]]
    if kind == "LoRA":
        return found[0][1], found[0][0]
    (a1, b1), (a2, b2) = found
    ranks = b1.shape[0] * b2.shape[0]
    rows, columns = (len(a1), b1.shape[1]) if kind == "LoHa" else (len(a1) * len(a2), b1.shape[1] * b2.shape[1])
    if ranks * (rows + columns) > rows * columns:
        return None
    if kind == "LoKr":
        return np.kron(b1, b2), np.kron(a1, a2)
    up = (a1[:, :, None] * a2[:, None, :]).reshape(rows, ranks)
    return (b1[:, None, :] * b2[None, :, :]).reshape(ranks, columns), up


def whole(kind: str, held: dict, scale: float) -> Edit:
    """The change as what is done to the whole weight."""
    factors = [_factors(kind, term, held) for term in KINDS[kind]]
    scale = float(scale)
    if kind == "LoRA":
        return Edit("product", (factors[0][1], factors[0][0], scale))
    if kind == "LoHa":
        return Edit("hadamard", (*factors[0], *factors[1], scale))
    return Edit("kronecker", (*(a @ b for a, b in factors), scale))
