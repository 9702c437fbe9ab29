"""Where a transformer spends its time: products and attention, each the way the CPU does it fastest.

Without gradients the CPU takes oneDNN's matrix product with GELU in its last pass, and bfloat16 attention as matrix
products over blocks of queries: torch's fused attention multiplies bfloat16 no faster than float32 there. A GPU, or a
graph that needs gradients, takes torch's own operations. Measured by tests/benchmarks/transformer.py.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import triton_ops

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
ONEDNN_DTYPES = {torch.float32}
if ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    ONEDNN_DTYPES.add(torch.bfloat16)
QUERIES = 256  # queries whose logits stay in the cache
ROWS = 256  # tokens at a time, so that what lies between two passes over them stays in the cache
LARGEST = 100.0  # logit, times the binary logarithm of e, whose power of 2 can still be summed as it is


def on_cpu(x: Tensor) -> bool:
    """Whether the CPU's own ways are open to x: inference in a type that oneDNN multiplies natively."""
    if torch.compiler.is_compiling():  # the compiler has its own
        return False
    return ONEDNN and x.device.type == "cpu" and x.dtype in ONEDNN_DTYPES and not torch.is_grad_enabled()


def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """x [... i] times weight [o i] plus bias, then GELU (tanh form) if asked."""
    if on_cpu(x) and x.dtype == weight.dtype:
        name, form = ("gelu", "tanh") if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], form)
    if gelu and x.dtype == weight.dtype and triton_ops.usable("linear_gelu", x, x.dtype):
        return triton_ops.linear_gelu(x, weight, bias)
    y = F.linear(x, weight, bias)
    return F.gelu(y, approximate="tanh") if gelu else y


def by_rows(function, x: Tensor, rows: int = 1024) -> Tensor:
    """function(x [b n d]), on the CPU a thousand tokens at a time: what it holds in between stays small."""
    if not on_cpu(x) or x.shape[1] <= rows:
        return function(x)
    return torch.cat([function(part) for part in x.split(rows, dim=1)], dim=1)


def in_rows(n: int) -> list[slice]:
    """n tokens as slices of ROWS."""
    return [slice(start, min(start + ROWS, n)) for start in range(0, n, ROWS)]


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention of q [b h n d] over k, v [b h m d]; bias is added to the logits. Returns [b h n d]."""
    if on_cpu(q) and bias is None:
        q, k, v = (x.contiguous() for x in (q, k, v))  # rows that lie apart cost the CPU more than the copy
        if q.dtype == torch.bfloat16 and q.shape[2] >= QUERIES:
            return attention_by_blocks(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))


def attention_by_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attention` one head and QUERIES queries at a time; q, k, v contiguous.

    Logits are rounded to the inputs' type, so keys are centred first: that shifts all logits of a query alike, which
    softmax does not see, and keeps them small where rounding is fine. Where the lengths of a head's queries and keys
    say that no logit is large, powers of 2 are summed as they are, and the sum divides the result.
    """
    (b, h, n, d), m = q.shape, k.shape[2]
    out = q.new_empty(b, n, h, d).transpose(1, 2)  # as tokens are joined afterwards
    q, k = q * (math.log2(math.e) * d**-0.5), k - k.mean(dim=2, keepdim=True)
    most = (longest(q) * longest(k)).flatten().tolist()
    logits, kept = q.new_empty(min(QUERIES, n), m), q.new_empty(min(QUERIES, n), d)
    heads = (x.flatten(0, 1) for x in (q, k, v))
    for bound, queries, keys, values, result in zip(most, *heads, (o for each in out for o in each), strict=True):
        for rows, into in zip(queries.split(QUERIES), result.split(QUERIES), strict=True):
            weights = torch.mm(rows, keys.T, out=logits[: len(rows)])
            if bound > LARGEST:
                into.copy_(torch.softmax(weights * math.log(2), dim=-1) @ values)
                continue
            total = torch.exp2(weights, out=weights).sum(dim=-1, keepdim=True)
            torch.div(torch.mm(weights, values, out=kept[: len(rows)]), total, out=into)
    return out


def longest(x: Tensor) -> Tensor:
    """The length of the longest row of every head of x [b h n d]: [b h] float32."""
    return torch.linalg.vector_norm(x, dim=-1).amax(dim=-1).float()
