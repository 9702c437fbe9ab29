"""A control adapter from pairs of clips and control videos to its file; goes on from its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from ...pipeline import Helios
from ..captioned import encode_captions
from ..loop import Recipe, fit
from ..lora import PairLearner, find_layers
from .adapter import TARGETS, TrainedAdapter
from .drawn import drawn_pairs
from .objective import ControlledClips, ControlObjective

SMALL = 100_000_000  # numbers of a transformer


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


def is_small(helios: Helios) -> bool:
    """Whether a checkpoint's activations fit as they are."""
    return sum(map(prod, helios.backend.shapes(helios.config.transformer).values())) < SMALL


def train_adapter(helios: Helios, clips: ControlledClips, plan: ControlPlan, file: Path) -> TrainedAdapter:
    """The trained adapter; helios is as it was afterwards. file: its checkpoint, from which the run goes on; the log
    lies beside it."""
    learner, pairs = None, None
    if plan.rank:
        layers = find_layers(helios.backend.shapes(helios.config.transformer), TARGETS)
        learner = PairLearner(helios, layers, plan.rank, float(plan.rank), not is_small(helios), plan.seed)
        pairs = learner.begin()
    net = helios.parts.transformer
    adapter = TrainedAdapter(helios.config.transformer, pairs).to(net.device)
    try:
        loss = ControlObjective(net, adapter, clips, helios.config, plan.policy, plan.batch, plan.drop, plan.seed)
        return fit(adapter, loss, plan.recipe(), file)
    finally:
        if learner is not None:
            learner.drop()


@torch.inference_mode(False)
def run(helios: Helios, plan: ControlPlan, folder: Path, output: Path, pairs=None) -> Path:
    """Trains and writes the adapter to `output`. helios: the base, on torch, in any number format. pairs: clips with
    their control latents; None: drawn ones, which are kept in `folder`."""
    with torch.enable_grad():
        pairs = drawn_pairs(helios, folder / "pairs", plan.shards, plan.what) if pairs is None else pairs
        clips = clips_of(helios, pairs, helios.parts.device, plan.drop_caption)
        helios.parts.release("vae")
        adapter = train_adapter(helios, clips, plan, folder / "control.pt")
    return adapter.save(output, plan.policy, plan.what)
