"""One process leads, the others follow: it alone has prompts, history and files, and tells them every step.

The pipeline of the first process calls `Leader` as it would the transformer. Contexts are made where they are needed:
an order holds what those that are new are made of, an embedding or a history's latents, and numbers for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...text import Embedding
from . import bands
from .parallel import Ranks


class Order(NamedTuple):
    """One step. shape: of its latents, which follow; size: width, height and batch of the video; texts, history: of
    contexts the numbers, None for no history; new: number -> (the transformer's method that makes it, of what)."""

    shape: tuple[int, ...]
    t: float
    size: tuple[int, int, int]
    texts: list[int]
    history: int | None
    new: dict[int, tuple[str, Any]]

    @property
    def names(self) -> list[int]:
        """All contexts that it needs."""
        return [*self.texts, *([] if self.history is None else [self.history])]


class Decode(NamedTuple):
    """A chunk to decode. shape: of its latents, which follow; size: width and height of the video."""

    shape: tuple[int, ...]
    size: tuple[int, int]


class Wanted(NamedTuple):
    """A context that the leader was asked for, which every process makes when it is first needed."""

    number: int
    method: str
    made_of: Any


@dataclass
class Follower:
    """What every process does, the leader too. held: contexts by number, those of the last order."""

    ranks: Ranks
    held: dict[int, Any] = field(default_factory=dict)

    def compute(self, model, x: Tensor, order: Order) -> list[Tensor]:
        """The velocities of an order, for all current tokens."""
        self.ranks.use(model)
        self.held = {number: self.held[number] for number in order.names if number in self.held}
        for number, (method, made_of) in order.new.items():
            self.held[number] = getattr(model, method)(made_of)
        self.ranks.spread(x)
        history = None if order.history is None else self.held[order.history]
        texts = [self.held[number] for number in order.texts]
        if self.ranks.halves is None or len(texts) != 2:
            return model.velocities(x, order.t, texts, history)
        return self.ranks.guided(lambda branch: model.velocities(x, order.t, texts[branch : branch + 1], history)[0])

    @torch.inference_mode()
    def follow(self, ready: Callable) -> None:
        """Takes orders until there are no more. ready(name, width, height, batch): a network, about to compute."""
        while (order := self.ranks.hear()) is not None:
            if isinstance(order, Decode):
                vae = ready("vae", *order.size)
                for _ in self.decode(vae, torch.empty(order.shape, dtype=vae.dtype, device=vae.device)):
                    pass
            else:
                model = ready("transformer", *order.size)
                self.compute(model, torch.empty(order.shape, device=model.device), order)

    def decode(self, vae, z: Tensor) -> Iterator[Tensor]:
        """Blocks of frames of latents that the first process has."""
        return bands.decode(vae, self.ranks.spread(z), self.ranks)


class Leader:
    """A transformer (backends/interface.py) that the other processes compute too. After a step that failed in the
    middle they are lost to it."""

    def __init__(self, ranks: Ranks):
        self.ranks, self.own, self.numbers = ranks, Follower(ranks), count()
        self.model, self.size, self.failed = None, (0, 0, 0), False

    def of(self, model, size: tuple[int, int, int]) -> Leader:
        """Itself, about to compute with this model for videos of that width, height and batch."""
        self.model, self.size = model, size
        return self

    def decoder(self, vae, size: tuple[int, int, int]):
        """The VAE, which the others decode with too where its rows can be shared out; its encoder is alone."""

        def together(z: Tensor) -> Iterator[Tensor] | None:
            return self.decode(vae, z, size[:2]) if bands.divides(z.shape[3], self.ranks) else None

        vae.together = together
        return vae

    def decode(self, vae, z: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
        """Blocks of frames, to be taken to the end."""
        self._begin(Decode(tuple(z.shape), size))
        yield from self.own.decode(vae, z.contiguous())
        self.failed = False

    def array(self, values) -> Tensor:
        """As the model has it."""
        return self.model.array(values)

    def text_context(self, embedding) -> Wanted:
        """Of an `Embedding`, or of an array."""
        given = Embedding.of(embedding)
        return Wanted(next(self.numbers), "text_context", Embedding(torch.as_tensor(given.rows).cpu(), given.length))

    def history_context(self, parts) -> Wanted:
        """Of a `history.HistoryParts`."""
        latents = {name: torch.as_tensor(getattr(parts, name)).cpu() for name in ("long", "mid", "short")}
        control = tuple(torch.as_tensor(x).cpu() for x in parts.control)
        return Wanted(next(self.numbers), "history_context", parts._replace(**latents, control=control))

    def velocity(self, x: Tensor, t: float, text: Wanted, history: Wanted | None = None) -> Tensor:
        """As the model has it."""
        return self.velocities(x, t, (text,), history)[0]

    def velocities(self, x: Tensor, t: float, texts, history: Wanted | None = None) -> list[Tensor]:
        """As the model has it."""
        wanted = [*texts, *([] if history is None else [history])]
        new = {one.number: (one.method, one.made_of) for one in wanted if one.number not in self.own.held}
        names = [one.number for one in texts]
        order = Order(tuple(x.shape), t, self.size, names, None if history is None else history.number, new)
        self._begin(order)
        out = self.own.compute(self.model, x.float().contiguous(), order)
        self.failed = False
        return out

    def _begin(self, order) -> None:
        if self.failed:
            raise RuntimeError("a step failed in the middle, and the other processes are out of step; begin again")
        self.failed = True
        self.ranks.tell(order)

    def end(self) -> None:
        """Lets the others go."""
        if not self.failed:
            self.ranks.tell(None)
