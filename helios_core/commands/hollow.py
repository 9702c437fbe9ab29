"""A checkpoint without weights: folders and headers as a published one has them, and files that are one hole.

Reading gives zeros, and where the disk keeps no zeros the files take no room. For measuring and for tests.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from math import prod
from pathlib import Path

from ..checkpoint import BYTES
from ..checkpoint.inferred import umt5
from ..config import GENERATION, TransformerConfig, VAEConfig
from ..pipeline import TINY

UMT5_XXL = dict(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, vocab_size=256384, model_type="umt5")
UMT5_XXL |= dict(relative_attention_num_buckets=32, relative_attention_max_distance=128, tie_word_embeddings=False)
UMT5_XXL |= dict(feed_forward_proj="gated-gelu", is_gated_act=True, dense_act_fn="gelu_new")


def checkpoint(
    folder: Path, transformer: TransformerConfig, vae: VAEConfig, shapes: Callable, *, dtype="BF16", text=UMT5_XXL,
    size: tuple[int, int] | None = None,
) -> Path:  # fmt: skip
    """The folder, in the published layout; the tokenizer is helios-tiny's. shapes: the backend's, of a config.

    dtype: of the transformer's numbers. text: the text encoder's config. size: width and height, if not the published.
    """
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("*.safetensors", GENERATION))
    if size is not None:
        (folder / GENERATION).write_text(json.dumps({"width": size[0], "height": size[1]}))
    encoder = {**umt5(text), "shared.weight": (text["vocab_size"], text["d_model"])}
    for part, config, found, stored in (
        ("transformer", asdict(transformer), shapes(transformer), dtype),
        ("vae", asdict(vae), shapes(vae), "F32"),
        ("text_encoder", text, encoder, "BF16"),
    ):
        (folder / part / "config.json").write_text(json.dumps(config))
        write_holes(folder / part / "model.safetensors", found, stored)
    return folder


def write_holes(file: Path, shapes: dict, dtype: str) -> None:
    """A safetensors file of zeros: its header, and then nothing."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + end)
