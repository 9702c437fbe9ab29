"""`helios doctor --card 12`: how the 14B model would run on a card of so many GB, by weight format; without the model.

Nothing is measured here: the sizes of the published networks go through the same estimate that every run prints before
it loads (devices/needs.py), with a card that holds nothing else but a desktop.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..checkpoint import Source, Stored, inferred
from ..config import ModelConfig, check_number
from ..devices import Estimate, libraries, needs

CARDS = (8, 12, 16, 24, 32, 48, 80)  # GB, of the table
FORMATS = {"bf16": "bf16", "fp8, int8": "int8", "int4": "int4"}  # of a row -> what is estimated
DESKTOP = needs.GIB // 2  # what of a card is taken already
UMT5_XXL = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "num_layers": 24}
SIZE = {"width": 640, "height": 384}
MOST = 1000.0  # GB of a card


class Way(NamedTuple):
    """How a run goes on a card. mode: of offload. tiled: decoding in tiles."""

    mode: str
    tiled: bool
    estimate: Estimate

    @property
    def whole(self) -> bool:
        """Whether all of the transformer stays on the card."""
        return self.mode == "none"


def card(size: float) -> int:
    """Prints what to choose on a card of `size` GB; 0. ValueError for a size that no card has."""
    check_number("--card", size, MOST, least=1.0)
    sources = published()
    print(f"The 14B model at 640x384 on a card of {size:g} GB, by weight dtype (estimated; not tried on a card)")
    found = {kind: best(sources, kind, size) for kind in FORMATS.values()}
    for name, kind in FORMATS.items():
        print(f"  {name:<10} {describe(found[kind], kind)}")
    fits = [kind for kind, way in found.items() if way is not None]
    if not fits:
        print(f"None of them fits: the least is {needs.size(least(sources))} of the card.")
        return 0
    whole = next((kind for kind in fits if found[kind].whole), None)
    fastest = whole or fits[-1]  # the fewest bytes to stream
    print(f"\nFastest: --weight-dtype {fastest}{', all on the card' if whole else ''}")
    if fastest != fits[0]:
        host = needs.size(found[fits[0]].estimate.host("blocks"))
        print(f"Closest to the original: --weight-dtype {fits[0]}, with {host} of host memory")
    print("\nThe download is the same: helios download distilled")
    if fastest != "bf16":
        print("A smaller file, made from it once, loads faster and needs no --weight-dtype:")
        print(f"  helios convert models/helios/Helios-Distilled distilled-{fastest} --quantize {fastest}")
    return 0


def describe(way: Way | None, kind: str) -> str:
    """One way in words."""
    if way is None:
        return "does not fit"
    found, taken = way.estimate, way.estimate.device(way.mode, tiled=way.tiled) + way.estimate.spare
    how = "whole on the card" if way.whole else "streamed from host memory"
    tiles = ", decoding in tiles" if way.tiled else ""
    host = needs.size(found.host(way.mode))
    return f"{how}{tiles}: {needs.size(taken)} of the card, {host} of host memory (--weight-dtype {kind})"


def table() -> str:
    """The README's: rows of weight formats, a column per card, then the host memory of streaming."""
    sources = published()
    head = ["weights", *(f"{size} GB" for size in CARDS), "host memory to stream"]
    rows = [head, ["-"] * len(head)]
    for name, kind in FORMATS.items():
        ways = [best(sources, kind, size) for size in CARDS]
        rows.append([name, *map(_cell, ways), needs.size(ways[0].estimate.host("blocks"))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(way: Way | None) -> str:
    if way is None:
        return "no"
    return "whole" if way.whole else "streamed"


def best(sources: dict[str, Source], kind: str, size: float) -> Way | None:
    """The fastest way on a card of `size` GB; None if no way fits."""
    free, found = int(size * needs.GIB) - DESKTOP, estimate(sources, kind)
    mode = found.choose(free)
    return Way(mode, not found.fits(mode, free), found) if found.fits(mode, free, tiled=True) else None


def least(sources: dict[str, Source]) -> int:
    """Bytes of a card that the smallest way takes."""
    found = estimate(sources, "int4")
    return found.device("blocks", tiled=True) + found.spare


def estimate(sources: dict[str, Source], kind: str) -> Estimate:
    """Of a GPU that computes bfloat16 at speed, the VAE too."""
    how = {"device": "cuda", "fast_bf16": True, "weight_dtype": kind}
    return needs.estimate(sources, ModelConfig(), **SIZE, **how)


def published() -> dict[str, Source]:
    """The published model's parts as their headers have them, without files: the transformer and VAE in float32."""
    config, shapes = ModelConfig(), libraries.for_files().shapes
    text = {**inferred.umt5(UMT5_XXL), "shared.weight": (UMT5_XXL["vocab_size"], UMT5_XXL["d_model"])}
    parts = {
        needs.TRANSFORMER: (shapes(config.transformer), "F32"),
        needs.VAE: (shapes(config.vae), "F32"),
        needs.TEXT: (text, "BF16"),
    }
    nowhere = Path()
    return {
        part: Source(nowhere, part, {n: Stored(nowhere, n, dtype, tuple(s), 0) for n, s in found.items()}, {})
        for part, (found, dtype) in parts.items()
    }
