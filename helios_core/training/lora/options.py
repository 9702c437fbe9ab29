"""What a LoRA training is made with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoraOptions:
    """How a LoRA is trained; each is told of in commands/train_lora.py. A number of 0 and a text of auto are settled by
    the checkpoint."""

    rank: int = 16
    alpha: float = 0.0
    targets: str = "self,cross,feed"
    blocks: str = ""
    steps: int = 0
    optimiser: str = "auto"
    lr: float = 0.0
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
    first_steps: int = 0
    lessons: int = 0
    keep: str = ""
    seed: int = 0
    save_every: int = 100
    log_every: int = 20
    sample_every: int = 0
    sample_prompts: str = ""
