"""UMT5, the text encoder, in MLX; no transformers.

The same two traps as with torch: the file stores one of the embedding's two names, or both, and they are one tensor;
and in half precision the feed-forward's output overflows, so that those layers stay float32 then. Unlike
transformers, the residual stream is float32 whatever the weights are. Module names are Hugging Face's.
Source: T5 (arXiv 1910.10683) as in transformers' UMT5: no scale in attention, a position bias in every block.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from einops import rearrange
from mlx.core import array

from ...checkpoint import EMBEDDINGS, Source, check_text_encoder, precision, tell
from ...text import Embedding, load_tokenizer
from .arrays import evaluate
from .files import FLOATS, widen
from .layers import gelu_tanh

logger = logging.getLogger(__name__)
ACTIVATION = "gated-gelu"


def buckets(length: int, count: int, furthest: int) -> np.ndarray:
    """Bucket [query key] of every distance: half of them for later keys; near ones exact, far ones logarithmic."""
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = count // 2
    exact = half // 2
    near = np.abs(distance)
    ratio = np.log(np.maximum(near, exact).astype(np.float32) / exact) / np.float32(math.log(furthest / exact))
    far = np.minimum(exact + (ratio * (half - exact)).astype(np.int32), half - 1)
    return np.where(distance > 0, half, 0) + np.where(near < exact, near, far)


class SelfAttention(nn.Module):
    """Attention with a bias by distance, and no scale."""

    def __init__(self, config: dict):
        super().__init__()
        self.heads, inner, width = config["num_heads"], config["num_heads"] * config["d_kv"], config["d_model"]
        self.furthest = config.get("relative_attention_max_distance", 128)
        self.q = nn.Linear(width, inner, bias=False)
        self.k = nn.Linear(width, inner, bias=False)
        self.v = nn.Linear(width, inner, bias=False)
        self.o = nn.Linear(inner, width, bias=False)
        self.relative_attention_bias = nn.Embedding(config.get("relative_attention_num_buckets", 32), self.heads)

    def bias(self, length: int) -> array:
        """[1 h n n], added to the logits."""
        table = self.relative_attention_bias
        positions = table(mx.array(buckets(length, len(table.weight), self.furthest)))
        return rearrange(positions, "q k h -> 1 h q k")

    def __call__(self, x: array, mask: array) -> array:
        """x [b n d]; mask [b 1 1 n], False for padding."""
        q, k, v = (rearrange(layer(x), "b n (h d) -> b h n d", h=self.heads) for layer in (self.q, self.k, self.v))
        bias = mx.where(mask, self.bias(x.shape[1]).astype(q.dtype), mx.array(-math.inf, q.dtype))
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=1.0, mask=bias)
        return self.o(rearrange(out, "b h n d -> b n (h d)"))


class DenseReluDense(nn.Module):
    """The gated feed-forward; the name is Hugging Face's, its activation is GELU."""

    def __init__(self, config: dict):
        super().__init__()
        self.wi_0 = nn.Linear(config["d_model"], config["d_ff"], bias=False)
        self.wi_1 = nn.Linear(config["d_model"], config["d_ff"], bias=False)
        self.wo = nn.Linear(config["d_ff"], config["d_model"], bias=False)

    def __call__(self, x: array) -> array:
        """x [b n d] -> [b n d] in the last layer's type."""
        return self.wo((gelu_tanh(self.wi_0(x)) * self.wi_1(x)).astype(self.wo.weight.dtype))


class UMT5Layer(nn.Module):
    """x plus the branch, registered under the name that the files have for it, of x normalised."""

    def __init__(self, config: dict, branch: type[nn.Module]):
        super().__init__()
        self.name = branch.__name__
        self[self.name] = branch(config)
        self.layer_norm = nn.RMSNorm(config["d_model"], config.get("layer_norm_epsilon", 1e-6))

    def __call__(self, x: array, dtype: mx.Dtype, *mask: array) -> array:
        """x [b n d] float32; dtype: of the branch's input; mask: what the branch takes beside it."""
        y = mx.fast.rms_norm(x, self.layer_norm.weight.astype(mx.float32), self.layer_norm.eps)
        return x + self[self.name](y.astype(dtype), *mask)


class UMT5Block(nn.Module):
    """The names of a block's two layers; `UMT5EncoderModel` runs them."""

    def __init__(self, config: dict):
        super().__init__()
        self.layer = [UMT5Layer(config, SelfAttention), UMT5Layer(config, DenseReluDense)]


class UMT5Stack(nn.Module):
    """The names of all blocks and the last norm; `UMT5EncoderModel` runs them."""

    def __init__(self, config: dict):
        super().__init__()
        self.block = [UMT5Block(config) for _ in range(config["num_layers"])]
        self.final_layer_norm = nn.RMSNorm(config["d_model"], config.get("layer_norm_epsilon", 1e-6))


class UMT5EncoderModel(nn.Module):
    """config: that of the text encoder's config.json. ValueError for another activation than UMT5's."""

    def __init__(self, config: dict):
        super().__init__()
        if config.get("feed_forward_proj", ACTIVATION) != ACTIVATION:
            raise ValueError(f"text encoder: feed_forward_proj {config['feed_forward_proj']!r}; UMT5 has {ACTIVATION}")
        self.shared = nn.Embedding(config["vocab_size"], config["d_model"])
        self.encoder = UMT5Stack(config)

    def __call__(self, ids: array, mask: array) -> array:
        """Token ids [b n], mask [b n] of zeros for padding -> states [b n d] float32."""
        dtype = self.encoder.block[0].layer[0].SelfAttention.q.weight.dtype
        x, seen = self.shared(ids).astype(mx.float32), (mask != 0)[:, None, None]
        for block in self.encoder.block:
            attention, feed = block.layer
            x = feed(attention(x, dtype, seen), dtype)
        norm = self.encoder.final_layer_norm
        return mx.fast.rms_norm(x, norm.weight.astype(mx.float32), norm.eps)


class UMT5TextEncoder:
    """Cleaned prompts -> `Embedding` of rows [b n d_model], float32, exactly zero past each prompt's end.

    tokenize: prompts -> token ids per prompt, end token included, at most max_length.
    """

    def __init__(
        self,
        model: UMT5EncoderModel,
        tokenize: Callable[[list[str]], list[list[int]]],
        *,
        max_length: int = 512,
    ):
        self.model, self.tokenize, self.max_length = model, tokenize, max_length

    def __call__(self, prompt: str | list[str]) -> Embedding:
        """One prompt or several. An empty prompt is its end token alone."""
        rows = self.tokenize([prompt] if isinstance(prompt, str) else prompt)
        # Padded only to the longest prompt: masked positions change nothing, and encoding 512 of them is slow.
        longest = max(map(len, rows))
        if longest == self.max_length:
            logger.warning("a prompt fills all %d tokens; anything after them was cut off", self.max_length)
        ids = mx.array([row + [0] * (longest - len(row)) for row in rows])
        mask = mx.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        states = self.model(ids, mask) * mask[..., None]
        evaluate(states)
        return Embedding(states, self.max_length)


def load_text_encoder(
    source: Source, *, device=None, dtype: mx.Dtype | None = None, max_length: int = 512
) -> UMT5TextEncoder:
    """The text encoder with its tokenizer. device: MLX's own in any case.

    dtype: of the weights; None is the file's (`find_dtype`). ValueError names missing files, and missing, unexpected
    or misshapen keys.
    """
    check_text_encoder(source)
    tokenize = load_tokenizer(source.tokenizer, max_length, source.config["vocab_size"])
    model = UMT5EncoderModel(source.config)
    model.load_weights(list(_read(source, dtype or find_dtype(source)).items()), strict=True)
    return UMT5TextEncoder(model.train(False), tokenize, max_length=max_length)


def find_dtype(source: Source) -> mx.Dtype:
    """One dtype for all layers: that of the stored linear layers; bfloat16 where they are in fewer bits."""
    return FLOATS[precision.text_format(source)]


def _read(source: Source, dtype: mx.Dtype) -> dict[str, array]:
    found, weights, names = source.tensors, {}, {dtype: name for name, dtype in FLOATS.items()}
    for name in sorted(found, key=lambda n: found[n][:2]):
        weights[name] = widen(found[name]).astype(
            mx.float32 if precision.text_is_float32(name, names[dtype]) else dtype
        )
        evaluate(weights[name])
        tell(found[name].whole)
    both = [weights.pop(name) for name in EMBEDDINGS if name in weights]
    if len(both) == 2 and not bool(mx.array_equal(*both)):
        raise ValueError(f"text encoder {source.path}: {' and '.join(EMBEDDINGS)} differ; a UMT5 file ties them")
    return weights | {EMBEDDINGS[0]: both[0]}
