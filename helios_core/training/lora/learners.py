"""What learns: low-rank pairs beside the base, or all weights of a small checkpoint; and the file it becomes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ...backends.torch.load import build_and_load
from ...backends.torch.transformer import FLOAT32, HeliosTransformer
from ...disk import new_folder
from ...pipeline import Helios
from ..files import save
from .adapters import attach, detach
from .checkpointed import checkpoint_blocks


@dataclass
class PairLearner:
    """Pairs on so many layers of a checkpoint, `rank` wide; the base stays as it is loaded."""

    helios: Helios
    layers: list[str]
    rank: int
    alpha: float
    checkpointing: bool
    seed: int = 0

    @property
    def model(self) -> HeliosTransformer:
        """The transformer, with the pairs while there are any."""
        return self.helios.parts.transformer

    def begin(self) -> nn.Module:
        """New pairs, which add nothing yet: what `fit` takes."""
        self.drop()
        if self.checkpointing:
            checkpoint_blocks(self.model)
        shapes = self.helios.backend.shapes(self.helios.config.transformer)
        return attach(self.model, self.layers, shapes, rank=self.rank, alpha=self.alpha, seed=self.seed)

    def drop(self) -> None:
        """The base again."""
        detach(self.model)

    def save(self, learnt: nn.Module, output: Path, metadata: dict[str, str]) -> None:
        """One safetensors file, float32."""
        save(learnt.tensors(), output, metadata)


class WholeLearner:
    """All weights of a checkpoint's transformer, float32."""

    def __init__(self, helios: Helios, checkpointing: bool):
        self.helios, self.checkpointing = helios, checkpointing

    @property
    def model(self) -> HeliosTransformer:
        """The transformer as it is now."""
        return self.helios.parts.transformer

    def begin(self) -> nn.Module:
        """The checkpoint's weights anew, as what `fit` takes."""
        model = self._load().requires_grad_(True)
        if self.checkpointing:
            checkpoint_blocks(model)
        self.helios.parts.loaded.networks["transformer"] = model
        return nn.ModuleDict({"transformer": model})

    def drop(self) -> None:
        """The checkpoint's weights again."""
        self.helios.parts.release("transformer")

    def _load(self) -> HeliosTransformer:
        parts, config = self.helios.parts, self.helios.config.transformer
        source = parts.checkpoint.sources["transformer"]
        return build_and_load(lambda: HeliosTransformer(config), source, lambda _: torch.float32, parts.device)

    def save(self, learnt: nn.Module, output: Path, metadata: dict[str, str]) -> None:
        """A folder like the checkpoint's own, its transformer's weights in bfloat16 but for the float32 islands."""
        source = self.helios.checkpoint.path
        state = {k: _cast(k, v) for k, v in learnt["transformer"].state_dict().items()}
        with new_folder(output) as part:
            shutil.copytree(source, part, dirs_exist_ok=True, ignore=lambda folder, names: _weights(folder, names))
            save(state, part / "transformer" / "diffusion_pytorch_model.safetensors", metadata)


def _cast(name: str, value: torch.Tensor) -> torch.Tensor:
    return value.float() if any(part in name for part in FLOAT32) else value.to(torch.bfloat16)


def _weights(folder: str, names: list[str]) -> list[str]:
    """Those of the transformer, which are not copied."""
    if Path(folder).name != "transformer":
        return []
    return [name for name in names if "safetensors" in name]


@contextmanager
def holding(learnt: nn.Module, average: nn.Module) -> Iterator[None]:
    """Inside, what learns has the averaged weights."""
    own = {name: value.clone() for name, value in learnt.state_dict().items()}
    learnt.load_state_dict(average.state_dict())
    try:
        yield
    finally:
        learnt.load_state_dict(own)


def facts(settings, helios: Helios, clips: int) -> dict[str, str]:
    """What a file says of how it was made."""
    import json

    return {
        "helios_training": json.dumps(asdict(settings)),
        "helios_base": f"{helios.checkpoint.path.name}, {helios.config.variant}",
        "helios_clips": str(clips),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "helios/lora",
    }
