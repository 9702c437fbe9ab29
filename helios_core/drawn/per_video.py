"""What a batch of videos remembers under a drift policy, each video by itself."""

from __future__ import annotations

from dataclasses import replace

from einops import pack

from ..history import MOMENTS, DriftPolicy, History, remember
from ..noise import batch_noise


def one(history: History, i: int) -> History:
    """Element i of a batch, as a history of its own."""
    held = {name: getattr(history, name) for name in ("window", "anchor", *MOMENTS)}
    return replace(history, **{name: x if x is None else x[i : i + 1] for name, x in held.items()})


def together(rows: list[History]) -> History:
    """Histories of one element each as a batch."""
    held = {name: [getattr(row, name) for row in rows] for name in ("window", "anchor", *MOMENTS)}
    axes = {name: "* c k" if name in MOMENTS else "* c t h w" for name in held}
    return replace(rows[0], **{name: None if x[0] is None else pack(x, axes[name])[0] for name, x in held.items()})


class PerVideoDrift:
    """What is remembered of chunks under a drift policy, video by video: within a batch there is but one verdict."""

    def __init__(self, helios, policy: DriftPolicy, seed: int):
        self.helios, self.policy, self.seed = helios, policy, seed
        self.found: list[list[bool]] = []  # per chunk, per video

    def __call__(self, history: History, latents) -> History:
        array, rows = self.helios.backend.array, []
        for i in range(history.shape[0]):
            noise = batch_noise(self.seed + i, 1)
            rows.append(remember(one(history, i), latents[i : i + 1], self.policy, noise=noise, array=array))
        self.found.append([row.drift.found for row in rows])
        return together([row.history for row in rows])
