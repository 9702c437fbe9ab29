"""One transformer on several processes, by Ulysses (Jacobs et al., arXiv 2309.14509).

Every process has all weights and a share of the tokens: of the history's and of the current ones apart, sizes differing
by one at most. Norms, products, cross-attention and feed-forward are each token's own. Self-attention is each head's
own: before it an exchange of all with all turns some tokens of all heads into all tokens of some heads, and back after
it. Keys come normed, rotated and with the history's gain; the order of the tokens is then free. Text keys and values
are everywhere. At the end all tokens are gathered. What is sent: web/docs/many_gpus.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, distributed, nn

from . import compiled

LOG = logging.getLogger(__name__)
STEP = timedelta(hours=1)  # that a process waits for another within a step, one that still loads among them
RUN = timedelta(days=20)  # that it waits for a step; its milliseconds fit 32 bits


class Lost(RuntimeError):
    """Another process of the group is gone."""


@contextmanager
def exchange() -> Iterator[None]:
    """Inside, what goes wrong between processes is Lost."""
    try:
        yield
    except RuntimeError as error:
        raise Lost(f"another process of this run is gone: {error}") from error


class Ranks:
    """The processes of torch's group, or those of them that compute together. number: of this one among them, from 0;
    count: how many; group: torch's name of them, None for all; sent: bytes of tokens that this one has sent to others;
    tokens: per stream of the forward under way, how many every process has. everyone, world: number and count of all
    processes. halves: what guides, a prompt and its negative, is computed by a half of them each."""

    def __init__(self, halves: bool = False):
        self.number, self.count, self.group = distributed.get_rank(), distributed.get_world_size(), None
        self.everyone, self.world = self.number, self.count
        self.orders = distributed.new_group(backend="gloo", timeout=RUN)
        self.weights = distributed.new_group(timeout=STEP)  # of their own, for shards.py: they come beside tokens
        self.halves, self.pair = _halves(self.number, self.count) if halves else (None, None)
        self.tokens: list[list[int]] = []
        self.sent = 0

    @contextmanager
    def half(self) -> Iterator[int]:
        """Inside, they are this process's half; gives its number, 0 or 1."""
        whole = self.number, self.count, self.group
        self.count //= 2
        branch, self.number = divmod(self.number, self.count)
        self.group = self.halves
        try:
            yield branch
        finally:
            self.number, self.count, self.group = whole

    def guided(self, velocity: Callable[[int], Tensor]) -> list[Tensor]:
        """Both branches of a guided step, of which each half computes one: velocity(0) or velocity(1)."""
        with self.half() as branch:
            own = velocity(branch).contiguous()
        both = [torch.empty_like(own) for _ in range(2)]
        self.sent += own.nbytes
        with exchange():
            distributed.all_gather(both, own, group=self.pair)
        return both

    def use(self, model: nn.Module) -> None:
        """Has a transformer compute with the other processes, which call it with the same arguments."""
        if model.ranks is self:
            return
        check_heads(model.config.num_attention_heads, self.count)
        for i, block in enumerate(model.blocks):
            last = i + 1 == len(model.blocks)
            block.attn1.attention = self.attention(block.attn1.attention, last=last)
        if model.run is not compiled.run:
            LOG.warning("the transformer is not compiled: several processes compute it together")
        model.ranks, model.run = self, compiled.run

    def sizes(self, n: int) -> list[int]:
        """Tokens of every process, of n in all."""
        return [n // self.count + (k < n % self.count) for k in range(self.count)]

    def part(self, x: Tensor, sizes: list[int], dim: int = 1) -> Tensor:
        """This process's share of x along an axis."""
        return x.narrow(dim, sum(sizes[: self.number]), sizes[self.number]).contiguous()

    def divide(self, streams: list[Tensor], rotations: Tensor) -> tuple[list[Tensor], Tensor]:
        """This process's share of every stream [b n d], and of the rotations [n d/2 2] of them all in a row.

        ValueError for a stream of fewer tokens than there are processes.
        """
        whole = [stream.shape[1] for stream in streams]
        if min(whole) < self.count:
            raise ValueError(f"{min(whole)} tokens are too few for {self.count} processes; choose a larger size")
        self.tokens = [self.sizes(n) for n in whole]
        turns = [self.part(r, s, 0) for r, s in zip(rotations.split(whole), self.tokens, strict=True)]
        return [self.part(x, s) for x, s in zip(streams, self.tokens, strict=True)], torch.cat(turns)

    def attention(self, way: Callable, *, last: bool) -> Callable:
        """Self-attention as a block calls it, for this process's tokens. way: as `kernels.attention`, for whole heads;
        last: of the last block, whose queries are the current tokens alone."""

        def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
            keys = [sum(each) for each in zip(*self.tokens, strict=True)]
            queries = self.tokens[-1] if last else keys
            if queries == keys:
                q, k, v = self.to_heads([q, k, v], keys)
            else:
                (q,), (k, v) = self.to_heads([q], queries), self.to_heads([k, v], keys)
            return self.to_tokens(way(q, k, v), queries)

        return run

    def to_heads(self, parts: list[Tensor], tokens: list[int]) -> list[Tensor]:
        """Each [b h n d], this process's tokens -> [b h/count m d], all tokens. tokens: n of every process."""
        b, h, n, d = parts[0].shape
        send = parts[0].new_empty(self.count * n, len(parts), b, h // self.count, d)
        for k, x in enumerate(parts):
            send.view(self.count, n, *send.shape[1:])[:, :, k] = rearrange(x, "b (p h) n d -> p n b h d", p=self.count)
        out = send.new_empty(sum(tokens), *send.shape[1:])
        self._swap(out, send, tokens, [tokens[self.number]] * self.count)
        return list(rearrange(out, "n k b h d -> k b h n d"))

    def to_tokens(self, x: Tensor, tokens: list[int]) -> Tensor:
        """The way back: [b h/count m d] -> [b h n d]."""
        send = rearrange(x, "b h m d -> m b h d").contiguous()
        own = tokens[self.number]
        out = send.new_empty(self.count * own, *send.shape[1:])
        self._swap(out, send, [own] * self.count, tokens)
        return rearrange(out, "(p n) b h d -> b (p h) n d", p=self.count)

    def _swap(self, out: Tensor, send: Tensor, came: list[int], went: list[int]) -> None:
        self.sent += (sum(went) - went[self.number]) * send[0].nbytes
        with exchange():
            distributed.all_to_all_single(out, send, came, went, group=self.group)

    def gather(self, x: Tensor) -> Tensor:
        """This process's share [b n d] of the current tokens -> all of them."""
        sizes = self.tokens[-1]
        x = F.pad(x, (0, 0, 0, max(sizes) - x.shape[1])).contiguous()
        parts = [torch.empty_like(x) for _ in sizes]
        self.sent += (self.count - 1) * x.nbytes
        with exchange():
            distributed.all_gather(parts, x, group=self.group)
        return torch.cat([part[:, :n] for part, n in zip(parts, sizes, strict=True)], dim=1)

    def spread(self, x: Tensor) -> Tensor:
        """A tensor of the first process in all, into the one given."""
        with exchange():
            distributed.broadcast(x, 0)
        return x

    def tell(self, order) -> None:
        """Gives the others an object; the first process calls it, the others `hear`."""
        with exchange():
            distributed.broadcast_object_list([order], 0, group=self.orders)

    def hear(self):
        """Waits for what the first process tells."""
        given = [None]
        with exchange():
            distributed.broadcast_object_list(given, 0, group=self.orders)
        return given[0]


def _halves(number: int, count: int) -> tuple:
    """torch's groups of this process's half, and of it and its partner in the other. ValueError for an odd count."""
    if count % 2:
        raise ValueError(f"--split-guidance gives each half of the GPUs a branch, and {count} have no halves")
    half = count // 2
    made = [distributed.new_group(range(k * half, k * half + half), timeout=STEP) for k in range(2)]  # by all, in order
    pairs = [distributed.new_group([k, k + half], timeout=STEP) for k in range(half)]
    return made[number // half], pairs[number % half]


def check_heads(heads: int, count: int) -> None:
    """ValueError unless a model's heads can be shared out to so many processes."""
    if heads % count:
        work = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
        raise ValueError(f"this model has {heads} attention heads, which {count} GPUs cannot share; {work} can")


def device(own: torch.device) -> torch.device:
    """Where this process computes; own: what one alone would choose. ValueError where there are too few GPUs."""
    if own.type != "cuda":
        return torch.device("cpu")
    here, there = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if here > there:
        raise ValueError(f"{here} GPUs were asked for, this machine has {there}")
    if not distributed.is_nccl_available():
        raise ValueError("several GPUs need NCCL, which this torch has not; on Windows use WSL2")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


@contextmanager
def joined(place: torch.device, halves: bool = False) -> Iterator[Ranks]:
    """This process in the group that torchrun's variables describe. ValueError for an odd number in halves."""
    if place.type == "cuda":
        torch.cuda.set_device(place)
    with exchange():
        distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=STEP)
        ranks = Ranks(halves)
    yield ranks
    distributed.destroy_process_group()
