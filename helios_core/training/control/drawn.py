"""Drawn pairs: an object of helios-tiny's vocabulary on a path, and the track that shows where it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...drawn import random_tracked
from ...pipeline import Helios
from ..captioned import EncodedClip
from ..files import load_shards

CHUNKS = 4  # of a clip
CLIPS = 20  # of a shard
VARIANTS = 3  # ways to say a caption


def drawn_objects(index: int, frames: int) -> list:
    """The objects of one shard, by its number."""
    rng = np.random.default_rng((index, 41))
    return [random_tracked(rng, frames) for _ in range(CLIPS)]


def encode_shard(helios: Helios, index: int, what: str) -> dict[str, Tensor]:
    """Raw latents of one shard's clips and of their control videos, [n c t h w], float16. what: track or mask."""
    frames = helios.config.frames_per_chunk
    found = drawn_objects(index, CHUNKS * frames)
    clips = [encode_whole(helios, one.frames()) for one in found]
    controls = [encode_whole(helios, getattr(one, what)()) for one in found]
    return {"latents": torch.stack(clips).half(), "controls": torch.stack(controls).half()}


def encode_whole(helios: Helios, video: np.ndarray) -> Tensor:
    """uint8 frames [f h w 3] of whole chunks, each encoded on its own -> raw latents [c t h w]."""
    size, vae = helios.config.frames_per_chunk, helios.parts.ready("vae", video.shape[2], video.shape[1])
    parts = [
        helios.backend.encode(vae, video[k : k + size].astype(np.float32) / 255)[0] for k in range(0, len(video), size)
    ]
    return torch.cat(parts, dim=2)[0]


def drawn_pairs(helios: Helios, folder: Path, shards: int, what: str) -> Iterator[tuple[EncodedClip, Tensor]]:
    """(clip, normalised control latents [c t h w]) of all shards; the missing ones are made and kept in `folder`."""
    frames = helios.config.frames_per_chunk * CHUNKS
    made = load_shards(folder, f"drawn-{what}", shards, lambda index: encode_shard(helios, index, what))
    for index, shard in enumerate(made):
        clips, controls = (helios.normalise(shard[name].float()) for name in ("latents", "controls"))
        for one, clip, control in zip(drawn_objects(index, frames), clips, controls):
            captions = tuple(one.caption(variant) for variant in range(VARIANTS))
            yield EncodedClip(clip, clip[:, :0], captions), control
