"""Weights to quantise, and a transformer of them."""

import torch
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.checkpoint import precision
from helios_video.helios_core.config.model import TransformerConfig
from helios_video.helios_core.history.window import History

SIZES = dict(num_attention_heads=4, attention_head_dim=32, rope_dim=(12, 10, 10), ffn_dim=512, num_layers=3)
SIZES |= dict(text_dim=64, freq_dim=32)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(seed=0, dtype=torch.float32, **sizes):
    """A model whose matrices are Gaussian and keep the size of their inputs, and its forward."""
    torch.manual_seed(seed)
    model = HeliosTransformer(TransformerConfig(**(sizes or SIZES))).requires_grad_(False).eval()
    for name, p in model.named_parameters():
        if p.ndim > 1 and "scale_shift_table" not in name:
            p.normal_(0, p[0].numel() ** -0.5)
        p.data = p.data if precision.is_float32(name) else p.data.to(dtype)
    x, text = torch.randn(1, 16, 2, 8, 8), torch.randn(1, 32, SIZES["text_dim"])
    history = History(torch.randn(1, 16, 19, 8, 8), torch.randn(1, 16, 1, 8, 8)).parts(2)
    return model, lambda m: m.velocity(x, 500.0, m.text_context(text), m.history_context(history))
