"""LoRA files in forms other than plain LoRA, for the model of loras.py, and the weights that they should give."""

from __future__ import annotations

import torch

from .loras import SHAPES

ALPHA = 2.0


def drawn(seed, *shapes, size=0.3):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g) * size for shape in shapes]


def locon(weight):
    """down, up of rank 3; of a convolution's kernel."""
    o, i, *kernel = weight
    down, up = drawn(1, (3, i, *kernel), (o, 3, *[1] * len(kernel)))
    return {"lora_down.weight": down, "lora_up.weight": up}, ALPHA / 3, mul(flat(up), flat(down))


def locon_core(weight):
    """A 1x1 down, the kernel in the middle, a 1x1 up."""
    o, i, *kernel = weight
    ones = [1] * len(kernel)
    down, mid, up = drawn(2, (3, i, *ones), (3, 3, *kernel), (o, 3, *ones))
    change = torch.einsum("om,mn...,ni->oi...", flat(up), mid.double(), flat(down))
    return {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}, ALPHA / 3, change


def loha(weight, rank=2):
    o, i = weight[0], torch.Size(weight[1:]).numel()
    held = dict(zip(HADA, drawn(3, (o, rank), (rank, i), (o, rank), (rank, i), size=0.8)))
    a1, b1, a2, b2 = held.values()
    return held, ALPHA / rank, mul(flat(a1), flat(b1)) * mul(flat(a2), flat(b2))


def loha_large(weight):
    """Of a rank whose square is more than the matrix has: computed as a whole."""
    return loha(weight, 8)


def loha_core(weight):
    o, i, *kernel = weight
    held = dict(zip(HADA, drawn(4, (2, o), (2, i), (2, o), (2, i), size=0.8)))
    held |= dict(zip(("hada_t1", "hada_t2"), drawn(5, (2, 2, *kernel), (2, 2, *kernel))))
    a1, b1, a2, b2, t1, t2 = (x.double() for x in held.values())
    one, two = (torch.einsum("pq...,po,qi->oi...", *x) for x in ((t1, a1, b1), (t2, a2, b2)))
    return held, ALPHA / 2, one * two


def lokr(weight):
    """The first whole, the second of rank 2."""
    o, i = weight[0], torch.Size(weight[1:]).numel()
    w1, a, b = drawn(6, (4, 2), (o // 4, 2), (2, i // 2))
    return {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b}, ALPHA / 2, torch.kron(w1.double(), mul(a, b))


def lokr_whole(weight):
    """Both whole: there is no rank, and alpha has no effect."""
    o, i, *kernel = weight
    w1, w2 = drawn(7, (4, 4), (o // 4, i // 4, *kernel))
    ones = [1] * len(kernel)
    return {"lokr_w1": w1, "lokr_w2": w2}, 1.0, torch.kron(w1.double().view(4, 4, *ones), w2.double())


def lokr_low(weight):
    """Both of rank 2."""
    o, i = weight[0], torch.Size(weight[1:]).numel()
    a1, b1, a2, b2 = drawn(8, (4, 2), (2, 4), (o // 4, 2), (2, i // 4), size=0.5)
    held = {"lokr_w1_a": a1, "lokr_w1_b": b1, "lokr_w2_a": a2, "lokr_w2_b": b2}
    return held, ALPHA / 2, torch.kron(mul(a1, b1), mul(a2, b2))


def lokr_core(weight):
    o, i, *kernel = weight
    w1, core, a, b = drawn(9, (4, 2), (2, 2, *kernel), (2, o // 4), (2, i // 2))
    w2 = torch.einsum("pq...,po,qi->oi...", core.double(), a.double(), b.double())
    held = {"lokr_w1": w1, "lokr_t2": core, "lokr_w2_a": a, "lokr_w2_b": b}
    return held, ALPHA / 2, torch.kron(w1.double().view(4, 2, *[1] * len(kernel)), w2.contiguous())


HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
ANY = {x.__name__: x for x in (locon, loha, loha_large, lokr, lokr_whole, lokr_low)}
KERNELS = {x.__name__: x for x in (locon, locon_core, loha, loha_core, lokr, lokr_whole, lokr_core)}
LENGTHS = ("rows", "columns", "peft")


def flat(x):
    return x.double().reshape(len(x), -1)


def mul(a, b):
    return a.double() @ b.double()


def in_form(make, layers, prefix="lora_unet_", shapes=SHAPES):
    """(tensors of a file, layer -> what is added at strength 1, float64)."""
    tensors, changes = {}, {}
    for layer in layers:
        weight = shapes[f"{layer}.weight"]
        held, scale, change = make(weight)
        name = f"{prefix}{layer.replace('.', '_')}"
        tensors |= {f"{name}.{key}": value for key, value in held.items()} | {f"{name}.alpha": torch.tensor(ALPHA)}
        changes[layer] = scale * change.reshape(weight)
    return tensors, changes


def with_lengths(tensors, layers, kind, prefix="lora_unet_", shapes=SHAPES):
    """The file with DoRA's lengths, and those by layer as they are multiplied: [o 1 ...] or [1 i ...]."""
    lengths = {}
    for n, layer in enumerate(layers):
        o, i, *kernel = shapes[f"{layer}.weight"]
        name, ones = f"{prefix}{layer.replace('.', '_')}", [1] * len(kernel)
        count = i if kind == "columns" else o
        value = torch.rand(count, generator=torch.Generator().manual_seed(n)) + 0.5
        lengths[layer] = value.view(*((1, i) if kind == "columns" else (o, 1)), *ones)
        key, held = ("lora_magnitude_vector", value) if kind == "peft" else ("dora_scale", lengths[layer])
        tensors = tensors | {f"{name}.{key}": held}
    return tensors, lengths


def stretched(old, change, length, strength):
    """DoRA in float64: the changed weight with these lengths, and the way there from the old one."""
    new = old.double() + change
    axes = [axis for axis in range(new.ndim) if axis != (0 if length.shape[0] > 1 else 1)]
    new = new / (new * new).sum(axes, keepdim=True).sqrt() * length.double()
    return old.double() + strength * (new - old.double())


def weights(state, changes, strength, lengths=None):
    """The model's weights, by hand."""
    new = {name: p.double() for name, p in state.items()}
    for layer, change in changes.items():
        old = new[f"{layer}.weight"]
        length = (lengths or {}).get(layer)
        new[f"{layer}.weight"] = old + strength * change if length is None else stretched(old, change, length, strength)
    return {name: p.float() for name, p in new.items()}
