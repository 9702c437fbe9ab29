"""The VAE's decoder on several processes: each has a band of the rows, and the same weights.

Up to the middle, which attends to whole frames at the latents' size, all do the same. From there on a layer sees no
further than `REACH` rows, which the neighbours lend it before each; a row's result does not depend on who computes it.
Bands are equal, so that all cut a clip into the same blocks of frames.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, distributed

from .parallel import Ranks, exchange
from .vae import WanVAE, flow
from .vae_blocks import ResidualBlock
from .vae_conv import Stream

REACH = 2  # rows of its input that a residual block's two convolutions see beside one; the other layers see fewer


def divides(rows: int, ranks: Ranks) -> bool:
    """Whether latents of so many rows can be shared out in bands that lend each other enough."""
    return rows % ranks.count == 0 and rows // ranks.count >= REACH


def borrow(x: Tensor, reach: int, ranks: Ranks) -> tuple[list[Tensor], list[Tensor]]:
    """The rows above and below a band x [b c t h w], `reach` of each neighbour's, in a list each: empty at an end."""
    upper, lower = ranks.number > 0, ranks.number + 1 < ranks.count
    edges = [*([x[:, :, :, :reach]] if upper else []), *([x[:, :, :, -reach:]] if lower else [])]
    send = torch.stack(edges).contiguous()
    out, beside = torch.empty_like(send), [int(abs(k - ranks.number) == 1) for k in range(ranks.count)]
    with exchange():
        distributed.all_to_all_single(out, send, beside, beside)
    return [*out[:1]] if upper else [], [*out[-1:]] if lower else []


def everyones(x: Tensor) -> list[Tensor]:
    """The tensor of every process, of one shape."""
    parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
    with exchange():
        distributed.all_gather(parts, x)
    return parts


class Divide:
    """A layer that leaves this process's band of x [b c t h w]."""

    width = 1

    def __init__(self, ranks: Ranks):
        self.ranks = ranks

    def __call__(self, x: Tensor, stream: Stream) -> Tensor:
        """All rows -> own rows."""
        return x.chunk(self.ranks.count, dim=3)[self.ranks.number]


class Banded:
    """A layer of the decoder behind its middle, for own rows."""

    def __init__(self, layer, ranks: Ranks):
        self.layer, self.ranks, self.width = layer, ranks, layer.width

    def __call__(self, x: Tensor, stream: Stream) -> Tensor:
        """As the layer, own rows [b c t h w] -> own rows."""
        reach = REACH if isinstance(self.layer, ResidualBlock) else 1
        above, below = borrow(x, reach, self.ranks)
        y = self.layer(torch.cat([*above, x, *below], dim=3), stream)
        scale = y.shape[3] // (x.shape[3] + reach * (len(above) + len(below)))
        return y.narrow(3, scale * reach * len(above), scale * x.shape[3])


def decode(vae: WanVAE, z: Tensor, ranks: Ranks) -> Iterator[Tensor]:
    """`vae.stream` by all processes, each of which has all frames in the end."""
    whole = 2 + len(vae.decoder.mid_block.layers())  # post_quant_conv and conv_in before it
    layers = vae.decode_layers()
    layers = [*layers[:whole], Divide(ranks), *(Banded(layer, ranks) for layer in layers[whole:])]
    for part in flow(z, layers, Stream()):
        yield torch.cat(everyones(part.contiguous()), dim=3).clamp(-1.0, 1.0)
