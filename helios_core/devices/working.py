"""What a step of the transformer works in, in bytes, and the tokens that this depends on."""

from __future__ import annotations

from math import ceil

from ..config import ModelConfig


def tokens(config: ModelConfig, width: int, height: int) -> tuple[int, int]:
    """Tokens of the history (2 frames, 2 at half and 16 at a quarter of the resolution), and of the finest stage."""
    stride = config.vae.scale_factor_spatial * config.transformer.patch_size[1]
    h, w = height // stride, width // stride
    history = 2 * h * w + ceil(h / 2) * ceil(w / 2) + 4 * ceil(h / 4) * ceil(w / 4)
    return history, config.defaults.chunk_latent_frames * h * w


def transformer_work(
    config: ModelConfig, width: int, height: int, item: int, *, batch: int = 1, kind: str | None = None
) -> int:
    """What a step holds at its widest: two residual streams in float32 and, in attention, the norm, queries, keys and
    values, and the first two once more in float32 and turned; or what the feed-forward makes, with its widened weight.

    item: bytes of a number; kind: how weights are quantised.
    """
    t, (history, current) = config.transformer, tokens(config, width, height)
    d, n = t.dim, history + current
    attention = n * d * (12 + 6 * item)
    feed = n * (d * (4 + item) + 2 * t.ffn_dim * item)
    beside = 4 * history * d + (item * current * d if item < 4 else 0)  # the chunk's embeddings
    tables = 2 * 4 * n * t.attention_head_dim + 4 * 8 * 6 * t.num_layers * d  # rotations and modulations
    widened = item * d * t.ffn_dim * 5 // 4 if kind else 0
    return batch * (max(attention, feed + widened) + beside) + tables


def stream_bytes(config: ModelConfig, width: int, height: int, batch: int = 1) -> int:
    """Of the residual streams alone, float32."""
    return 4 * batch * sum(tokens(config, width, height)) * config.transformer.dim
