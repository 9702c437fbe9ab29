"""A control adapter from pairs of clips and control videos to its file; goes on from its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ...pipeline import Helios
from ..captioned import encode_captions
from ..loop import Recipe, find_device, fit
from .adapter import TrainedAdapter, open_frozen
from .drawn import drawn_pairs
from .objective import ControlledClips, ControlObjective


@dataclass(frozen=True)
class ControlPlan:
    """How an adapter is trained. what: the extractor's name; lr: of embedding and LoRA; shards: of drawn pairs."""

    policy: str = "content"
    what: str = "track"
    rank: int = 24
    batch: int = 8
    steps: int = 640
    lr: float = 2e-3
    drop: float = 0.0
    drop_caption: float = 0.0
    shards: int = 12
    seed: int = 0
    save_every: int = 50
    log_every: int = 10

    def recipe(self) -> Recipe:
        """For the loop."""
        kept = {"save_every": self.save_every, "log_every": self.log_every}
        warmup, ema = min(50, self.steps // 5 + 1), min(0.99, 1 - 5 / max(10, self.steps))
        return Recipe(self.steps, lr=self.lr, warmup=warmup, decay=0.6, ema=ema, weight_decay=0.0, **kept)


def clips_of(helios: Helios, pairs, device="cpu", drop_caption: float = 0.0) -> ControlledClips:
    """Pairs of clips and control latents as batches are drawn from them."""
    clips, controls = zip(*pairs)
    rows = encode_captions(helios, [], tuple(text for clip in clips for text in clip.captions))
    defaults = helios.config.defaults
    about = {"length": defaults.max_text_length, "frames": defaults.chunk_latent_frames, "device": device}
    return ControlledClips(list(clips), rows, **about, drop_caption=drop_caption, controls=list(controls))


def train_adapter(
    helios: Helios, clips: ControlledClips, plan: ControlPlan, file: Path, *, device="cpu"
) -> TrainedAdapter:
    """The trained adapter. file: its checkpoint, from which the run goes on; the log lies beside it."""
    torch.manual_seed(plan.seed)
    net = open_frozen(helios.checkpoint.sources["transformer"], helios.config.transformer, device)
    adapter = TrainedAdapter(net, plan.rank).to(device)
    loss = ControlObjective(net, adapter, clips, helios.config, plan.policy, plan.batch, plan.drop, plan.seed)
    return fit(adapter, loss, plan.recipe(), file)


def run(helios: Helios, plan: ControlPlan, folder: Path, output: Path, *, pairs=None, device: str = "auto") -> Path:
    """Trains and writes the adapter to `output`. pairs: clips with their control latents; None: drawn ones, which are
    kept in `folder`."""
    place = find_device(device)
    pairs = drawn_pairs(helios, folder / "pairs", plan.shards, plan.what) if pairs is None else pairs
    clips = clips_of(helios, pairs, place, plan.drop_caption)
    adapter = train_adapter(helios, clips, plan, folder / "control.pt", device=place)
    return adapter.save(output, plan.policy, plan.what)
