"""`helios train lora`: a checkpoint learns from a folder of clips or pictures with captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .settings import FromFile


@dataclass(frozen=True)
class LoraSettings(FromFile):
    """How the LoRA is trained; see HELPS. A number of 0 and a text of auto are settled by the checkpoint."""

    free: ClassVar[tuple[str, ...]] = ("save_every", "log_every", "sample_every", "sample_prompts")

    rank: int = 16
    alpha: float = 0.0
    targets: str = "self,cross,feed"
    blocks: str = ""
    steps: int = 0
    lr: float = 0.0
    muon: float = 0.0
    decay: float = 0.5
    batch: int = 0
    stages: str = "auto"
    shift: int = 0
    drop_caption: float = 0.1
    ema: float = 0.99
    clip: float = 1.0
    precision: str = "bf16"
    checkpointing: str = "auto"
    pixels: int = 0
    chunks: int = 8
    few_steps: str = "auto"
    few_step_steps: int = 300
    lessons: int = 4
    keep: str = ""
    seed: int = 0
    save_every: int = 100
    log_every: int = 20
    sample_every: int = 0
    sample_prompts: str = ""


HELPS = {
    "rank": "of the pairs: more learns more, and makes a larger file",
    "alpha": "the pairs count alpha / rank; 0 is the rank",
    "targets": "layers that learn: self, cross (attention), feed (feed-forward), text (the prompt's embedding), or "
    "parts of layers' names",
    "blocks": "only of these blocks, such as 0-9,20; empty: all",
    "steps": "optimiser steps; 0: 1000, of small models 300",
    "lr": "learning rate; 0: 1e-4, of small models 2e-3",
    "muon": "learning rate of Muon for the pairs; 0: AdamW for all",
    "decay": "the share of the steps, at the end, over which the learning rate falls",
    "batch": "samples in a step of each process; 0: 1, of small models 24",
    "stages": "of the pyramid in a step: all, or one at a time, which takes less memory; auto: all of small models",
    "shift": "1: times by the schedule's dynamic shift; the official training of Base and Mid leaves it off",
    "drop_caption": "share of the samples without a prompt, for guidance",
    "ema": "of the weights that are kept",
    "clip": "largest norm of all gradients together",
    "precision": "bf16: autocast; fp32",
    "checkpointing": "on: blocks are computed again on the way back, which saves memory; auto: not of small models",
    "pixels": "of a frame at most, width times height; 0: the checkpoint's own",
    "chunks": "of a clip at most, 33 frames each",
    "few_steps": "of a checkpoint that takes few steps: teach those too, or off: flow alone, which spoils them; auto",
    "few_step_steps": "optimiser steps of that second part",
    "lessons": "rounds of videos that the first part makes for the second",
    "keep": "a file of prompts, a line each, whose videos shall stay as they are",
    "seed": "of all draws",
    "save_every": "steps between checkpoints; what was trained since the last is lost when the run is killed",
    "log_every": "steps between lines of the log",
    "sample_every": "steps between sample sheets in the folder; 0: none",
    "sample_prompts": "of the sheets, with | between; empty: the first captions",
}
ABOUT = (
    "Trains a LoRA on clips or pictures with captions (.txt beside each, or one .csv or .jsonl with the columns file "
    "and caption); goes on where a run was stopped or killed. Under torchrun several GPUs train together: torchrun "
    "--nproc-per-node 4 -m helios_video.helios_core.cli train lora"
)
