"""Encoded clips in memory, and the batches that are drawn from them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...history import History
from ...text import Embedding
from ..objective import SeededDraws, chunks_and_pasts

FIRST_CHUNK = 0.4  # share of the samples without a past, of clips that have more than one chunk
IMAGE_START = 0.12  # share of the samples that begin from their first picture


@dataclass(frozen=True, eq=False)
class EncodedClip:
    """latents [c t h w], normalised: whole chunks, or one frame of a picture. stills: per chunk the last latent of its
    first picture held still [c chunks h w]. captions: the ways to say what it shows. from_picture: whether a chunk may
    begin from its first picture, for which stills are needed."""

    latents: Tensor
    stills: Tensor
    captions: tuple[str, ...]
    from_picture: bool = True

    @property
    def moves(self) -> bool:
        """Whether it is no picture."""
        return self.latents.shape[1] > 1


class Sample(NamedTuple):
    """A batch: chunk [b c t h w], the history before it with errors, the prompts' embedding; pick, place: of which clip
    of the set and which chunk of it each is; image: whether it begins from its picture; said: its caption."""

    chunk: Tensor
    history: History
    text: Embedding
    pick: list[int]
    place: Tensor
    image: Tensor
    said: list[str]


@dataclass
class ClipSet:
    """Clips and their prompts' rows [m d]. length: rows of a prompt with padding. frames: latent frames of a chunk."""

    clips: list[EncodedClip]
    rows: dict[str, Tensor]
    length: int
    frames: int
    device: torch.device | str = "cpu"
    drop_caption: float = 0.1
    sizes: dict[tuple, list[int]] = field(init=False)

    def __post_init__(self):
        sizes = defaultdict(list)
        for i, clip in enumerate(self.clips):
            sizes[(clip.moves, *clip.latents.shape[2:])].append(i)
        self.sizes = dict(sizes)

    def draw(self, draws: SeededDraws, n: int) -> Sample:
        """n samples of one size; a size is drawn as often as it has clips."""
        groups = list(self.sizes.values())
        group = groups[int(draws.choose([len(members) for members in groups], 1))]
        pick = [group[i] for i in draws.pick(len(group), n).tolist()]
        clips = [self.clips[i] for i in pick]
        place, image = self._places(draws, clips)
        frames = self.frames if clips[0].moves else 1
        made = chunks_and_pasts([c.latents for c in clips], [c.stills for c in clips], place, image, frames)
        chunk, window, anchor = made
        say, drop = draws.rand(n).tolist(), draws.rand(n).tolist()
        said = [c.captions[int(s * len(c.captions))] for c, s in zip(clips, say)]
        said = ["" if d < self.drop_caption else words for words, d in zip(said, drop)]
        history = History(draws.corrupt(window).to(self.device), draws.corrupt(anchor).to(self.device))
        return Sample(chunk.to(self.device), history, self.embed(said), pick, place, image, said)

    def _places(self, draws: SeededDraws, clips: list[EncodedClip]) -> tuple[Tensor, Tensor]:
        """Which chunk of each, and whether it begins from its picture. A picture has neither past nor picture start."""
        later, where, image = (draws.rand(len(clips)) for _ in range(3))
        counts = torch.tensor([max(1, clip.latents.shape[1] // self.frames) for clip in clips])
        place = torch.where((later >= FIRST_CHUNK) & (counts > 1), 1 + (where * (counts - 1)).long(), 0)
        return place, (image < IMAGE_START) & torch.tensor([clip.moves and clip.from_picture for clip in clips])

    def embed(self, captions: list[str]) -> Embedding:
        """Of captions of the set, or "" ."""
        rows = [self.rows[text] for text in captions]
        most = max(len(row) for row in rows)
        return Embedding(torch.stack([nn.functional.pad(r, (0, 0, 0, most - len(r))) for r in rows]), self.length)
