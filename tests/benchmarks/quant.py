"""Relative error of one transformer forward with quantised weights, against float32 and bfloat16.

python tests/benchmarks/quant.py
python tests/benchmarks/quant.py --size 65m --dtype int4 --parts

Every matrix is Gaussian with variance 1 / fan-in, so each product keeps the size of its input and no layer's error is
hidden. A product's relative error is that of its weight, as rounding theory gives it. A forward's is close to that and
no multiple of it: the stream is a sum of updates, whose errors add as independent noise does (int8: one block .22 %,
six .57 %), and the share of the embeddings, which are not quantised, has none. --parts shows whose error it is:
cross-attention's for the most part, whose update no gate scales, then the feed-forward's, then self-attention's. In
bfloat16 the rounding of activations and of widened weights (.5 %) comes on top; beside int8 that is as much again.

Measured at the 65 M shape, against the same model in bfloat16: fp8 .024, int8 .0071, int4 .075. fp8 with scaled
products: .031, and .020 beside the widened ones.
"""

from __future__ import annotations

import argparse
import copy

import torch
from transformer import SIZES

GRID = (3, 8, 8)  # latent frames, height, width of the current chunk: enough tokens to average over
DTYPES = {"fp8_e4m3fn": 0.026, "int8": 0.0065, "int4": 0.084}  # of a product, by theory and measured


def build(size: str, *, dtype=torch.float32, seed: int = 0):
    """A fused model with Gaussian weights and a function that runs one forward of any such model."""
    from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
    from helios_video.helios_core.config.model import TransformerConfig
    from helios_video.helios_core.history.window import History

    torch.manual_seed(seed)
    config = TransformerConfig(**SIZES[size][0])
    model = HeliosTransformer(config).requires_grad_(False).eval()
    for name, p in model.named_parameters():
        if p.ndim > 1 and "scale_shift_table" not in name:
            p.normal_(0, p[0].numel() ** -0.5)
    t, h, w = GRID
    x, text = torch.randn(1, 16, t, h, w), torch.randn(1, 64, config.text_dim)
    text[:, 40:] = 0
    parts = History(torch.randn(1, 16, 19, h, w), torch.randn(1, 16, 1, h, w)).parts(t)
    return model, lambda m: m.velocity(x, 500.0, m.text_context(text), m.history_context(parts))


def in_dtype(model, dtype: torch.dtype):
    """A copy whose weights are `dtype`, but for the float32 islands."""
    from helios_video.helios_core.checkpoint.precision import is_float32

    model = copy.deepcopy(model)
    for name, p in model.named_parameters():
        p.data = p.data if is_float32(name) else p.data.to(dtype)
    return model


def error(found, wanted) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def weight_error(model, dtype: str) -> float:
    """Relative error of the stored weights, all layers together."""
    from helios_video.helios_core.backends.torch.quant import dequantise
    from helios_video.helios_core.backends.torch.quantising import quantise
    from helios_video.helios_core.checkpoint.precision import is_quantised

    wrong = total = 0.0
    for name, p in model.named_parameters():
        if is_quantised(name):
            parts = [*quantise(name, p, dtype).values(), None]
            wrong += (dequantise(*parts[:3], torch.float32) - p).square().sum().item()
            total += p.square().sum().item()
    return (wrong / total) ** 0.5


def measure(size: str, dtype: str) -> dict[str, float]:
    from helios_video.helios_core.backends.torch.quant import quantise_model

    model, run = build(size)
    half = in_dtype(model, torch.bfloat16)
    wanted, wanted_half = run(model), run(half)
    found = run(quantise_model(copy.deepcopy(model), dtype))
    made = quantise_model(copy.deepcopy(half), dtype)
    found_half = run(made)
    return {
        "weights": weight_error(model, dtype),
        "forward, fp32 products": error(found, wanted),
        "forward, bf16, against bf16": error(found_half, wanted_half),
        "forward, bf16, against fp32": error(found_half, wanted),
        "bf16 itself, against fp32": error(wanted_half, wanted),
        **scaled(made, run, found_half, wanted_half),
    }


def scaled(made, run, widened, wanted) -> dict[str, float]:
    """With products in eight bits (backends/torch/products.py), where layers fit them."""
    from helios_video.helios_core.backends.torch import products

    if not products.use(made, "cpu"):
        return {}
    found = run(made)
    return {
        "the same, scaled products, against bf16": error(found, wanted),
        "the same, beside the widened ones": error(found, widened),
    }


def measure_parts(size: str, dtype: str) -> dict[str, float]:
    """The error of a forward in which only some layers are quantised."""
    from helios_video.helios_core.backends.torch.quant import quantise_model

    model, run = build(size)
    wanted, blocks = run(model), range(len(model.blocks))
    chosen = {"self-attention": "attn1", "cross-attention": "attn2", "feed-forward": "ffn"}
    chosen |= {"first block": "blocks.0.", "last block": f"blocks.{blocks[-1]}."}
    found = {}
    for title, part in chosen.items():
        found[title] = error(run(quantise_model(copy.deepcopy(model), dtype, only=lambda n, p=part: p in n)), wanted)
    for count in blocks:
        names = tuple(f"blocks.{i}." for i in range(count + 1))
        only = lambda n, names=names: n.startswith(names)  # noqa: E731
        found[f"first {count + 1} blocks"] = error(run(quantise_model(copy.deepcopy(model), dtype, only=only)), wanted)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="65m")
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--parts", action="store_true", help="also with only some of the layers quantised")
    args = parser.parse_args()
    for dtype in args.dtype or DTYPES:
        print(f"{args.size}, {dtype}; a product by theory {DTYPES[dtype]:.4f}")
        found = measure(args.size, dtype) | (measure_parts(args.size, dtype) if args.parts else {})
        for title, value in found.items():
            print(f"  {title:46}{value:.5f}", flush=True)


if __name__ == "__main__":
    main()
