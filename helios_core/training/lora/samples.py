"""What a training has learnt so far, to look at: a sheet of a few prompts' first chunks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...disk import replacing
from ...pipeline import Helios

FRAMES = 6  # of a chunk, side by side


@dataclass
class SampleSheet:
    """Of some prompts, a row each, at one size (width, height). how: options of `Helios.sample`."""

    helios: Helios
    prompts: list[str]
    size: tuple[int, int]
    folder: Path
    how: dict = field(default_factory=dict)
    seed: int = 0

    @torch.inference_mode()
    def __call__(self, name: str) -> Path:
        """Draws NAME.png with the model as it is now."""
        self.helios.parts.transformer.forget()  # what it kept of prompts: it does not see pairs change
        rows = [self.row(prompt) for prompt in self.prompts]
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / f"{name}.png") as part:
            Image.fromarray(np.concatenate(rows)).save(part, "PNG")
        return self.folder / f"{name}.png"

    def row(self, prompt: str) -> np.ndarray:
        """uint8 [h (f w) 3]."""
        history = self.helios.history(*self.size)
        *_, last = self.helios.sample(history, self.helios.text(prompt), seed=self.seed, **self.how)
        frames = self.helios.decode(last.latent)
        picks = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
        return np.concatenate(list(frames[picks]), axis=1)
