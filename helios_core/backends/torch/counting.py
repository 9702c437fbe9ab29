"""What operations cost, counted as they are called: FLOPs, and the bytes that their kernels read and write.

Each operation counts as one kernel that reads its inputs and writes its results once, views not at all. So a compiler
that joins several moves less than is counted, and a kernel that reads something twice more.
"""

from __future__ import annotations

from collections import Counter

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

MADE = {"empty", "empty_strided", "new_empty", "empty_like", "empty_permuted", "_efficientzerotensor"}
WHOLE = {"copy_", "zero_", "fill_"}  # what they write they do not read
KINDS = {"convolution": "convolutions"} | dict.fromkeys(
    ("mm", "addmm", "bmm", "baddbmm", "addmm_", "_scaled_mm", "_int_mm", "linear_gelu"), "products"
)
ATTENTION = "attention"


class Work:
    """flops, moved (bytes), calls: by kind: products, convolutions, attention, other."""

    def __init__(self):
        self.flops, self.moved, self.calls = Counter(), Counter(), Counter()

    def clear(self) -> None:
        """Nothing was counted."""
        for counter in (self.flops, self.moved, self.calls):
            counter.clear()

    def plus(self, other: Work, times: int = 1) -> Work:
        """With so many times another's."""
        made = Work()
        for name in ("flops", "moved", "calls"):
            mine, others = getattr(self, name), getattr(other, name)
            getattr(made, name).update({kind: mine[kind] + times * others[kind] for kind in {*mine, *others}})
        return made

    def seconds(self, flops: float, speed: float) -> float:
        """On a device of so many FLOP/s and bytes/s at best: of each kind, what takes longer."""
        kinds = {*self.flops, *self.moved}
        return sum(max(self.flops[kind] / flops, self.moved[kind] / speed) for kind in kinds)

    def add(self, func, args, kwargs, out) -> None:
        """One operation that was called."""
        packet, mutable = func._overloadpacket, func._schema.is_mutable
        tensors, results = leaves((args, kwargs)), leaves(out)
        inside = {t.untyped_storage()._cdata for t in tensors}
        new = [t for t in results if t.untyped_storage()._cdata not in inside]
        if func.namespace == "prim" or packet.__name__ in MADE or not (new or mutable):
            return
        written = [(a.name, t) for a, t in arguments(func, args, kwargs) if writes(a) and isinstance(t, Tensor)]
        blind = {id(t) for name, t in written if name == "out" or packet.__name__ in WHOLE}
        kind = ATTENTION if "attention" in packet.__name__ else KINDS.get(packet.__name__, "other")
        read = [t for t in tensors if id(t) not in blind]
        self.moved[kind] += sum(map(unique, (*read, *new, *(t for _, t in written))))
        self.calls[kind] += 1
        if packet in flop_registry:
            self.flops[kind] += flop_registry[packet](*args, **kwargs, out_val=out)
        elif packet.__name__ == "linear_gelu":  # of triton_ops.py
            self.flops[kind] += 2 * out.numel() * args[0].shape[-1]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """One attention of q [b h n d] over k, v [b h m d], as a fused kernel does it."""
        (b, h, n, d), m = q.shape, k.shape[2]
        self.flops[ATTENTION] += 2 * b * h * n * m * (d + v.shape[-1])
        self.moved[ATTENTION] += sum(map(unique, (q, k, v, q)))
        self.calls[ATTENTION] += 1


class Counting(TorchDispatchMode):
    """Within it every operation is counted in `work`, composite ones by their parts. attend: an attention in place of
    torch's, which on a device without data would be taken apart."""

    def __init__(self):
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry and not func._schema.is_mutable:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        self.work.add(func, args, kwargs, out)
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Counted; the result [b h n d] holds nothing, tokens before heads in memory."""
        self.work.attend(q, k, v)
        return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[-1]).transpose(1, 2)


def leaves(tree) -> list[Tensor]:
    """The tensors in it, in lists and dictionaries too."""
    if isinstance(tree, Tensor):
        return [tree]
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return [t for part in inner for t in leaves(part)]


def arguments(func, args, kwargs) -> list[tuple]:
    """(what the operation says of an argument, the argument) of those that were given."""
    schema = func._schema.arguments
    named = {argument.name: argument for argument in schema}
    return [*zip(schema, args), *((named[name], value) for name, value in kwargs.items() if name in named)]


def writes(argument) -> bool:
    """Whether the operation writes into that argument."""
    return argument.alias_info is not None and argument.alias_info.is_write


def unique(t: Tensor) -> int:
    """Bytes of a tensor, what is only repeated counted once."""
    count = t.element_size()
    for size, stride in zip(t.shape, t.stride()):
        count *= size if stride else 1
    return count
