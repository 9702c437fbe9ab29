"""What ComfyUI's nvfp4 and mxfp8 add to a weight, so that it is made of whole tiles (unpacked.py takes it off).

comfy_kitchen fills rows and columns up to whole tiles with zeros, and a file does not say how many there were. Here the
transformer's biases do: each layer's has one number per row, and as many as the rows are the columns of what follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .stored import Stored

TILES = {"nvfp4": 16, "mxfp8": 32}
BLOCK = r"(blocks\.\d+\.)(attn[12]\.to_[qkv]|attn[12]\.to_out\.0|ffn\.net\.0\.proj|ffn\.net\.2)\.weight"


def find(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Of a transformer's tensors by published names those that are larger than the layer, with the layer's shape."""
    cut = {}
    for name, stored in tensors.items():
        tile = TILES.get(stored.marks.format) if stored.marks else None
        shape = tile and _shape(name, tensors)
        if shape and shape != stored.shape and tuple(-(-n // tile) * tile for n in shape) == stored.shape:
            cut[name] = stored._replace(shape=shape, marks=stored.marks._replace(filled=stored.shape))
    return cut


def _shape(name: str, tensors: Mapping[str, Stored]) -> tuple[int, int] | None:
    match = re.fullmatch(BLOCK, name)
    if match is None:
        return None
    before = "ffn.net.0.proj" if match[2] == "ffn.net.2" else "attn1.to_q"
    biases = [tensors.get(f"{match[1]}{layer}.bias") for layer in (match[2], before)]
    return None if None in biases or not all(b.shape for b in biases) else tuple(b.shape[0] for b in biases)
