"""Transformers with the same random weights on torch and on MLX."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig
from safetensors.torch import save_file

from .transformer import SIZES

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")

from helios_video.helios_core.backends.mlx import load as mlx_load  # noqa: E402
from helios_video.helios_core.backends.torch import load as torch_load  # noqa: E402
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer as Torch  # noqa: E402

WITHOUT_TORCH = """
import sys

class Hide:
    def __init__(self, real):
        self.real = real

    def __getattr__(self, name):
        return getattr(self.real, name)

    def find_spec(self, name, *rest):
        hidden = name.partition(".")[0] in ("torch", "transformers", "diffusers", "torchvision")
        return None if hidden else self.real.find_spec(name, *rest)

sys.meta_path[:] = map(Hide, sys.meta_path)
from helios_video.helios_core import cli
code = cli.main(sys.argv[1:])
assert "mlx.core" in sys.modules
assert not {"torch", "transformers", "diffusers"} & set(sys.modules)
sys.exit(code)
"""


def perturb(model, spread=0.3):
    """No parameter stays at a value that could hide a mistake, such as a norm's 1 or a bias's 0."""
    for name, p in model.named_parameters():
        if p.ndim == 1:
            torch.nn.init.normal_(p, 1.0 if "norm" in name and name.endswith("weight") else 0.0, spread)
        elif "scale_shift_table" in name:
            torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def write(folder, weights, config):
    """A transformer as published; its source."""
    (folder / "transformer").mkdir(exist_ok=True)
    save_file({name: x.contiguous() for name, x in weights.items()}, folder / "transformer" / "model.safetensors")
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    return open_part(folder, "transformer")


def last(events):
    return list(events)[-1]


def load(source, backend, dtype="fp32"):
    config = ModelConfig(transformer=TransformerConfig.from_dict(source.config))
    return backend.load_transformer(source, config, dtype=dtype, device=backend.find_device())


def pair(folder, seed=0, **sizes):
    """The torch model and ours with the same weights, both from one file."""
    torch.manual_seed(seed)
    config = {**SIZES, **sizes}
    source = write(folder, perturb(Torch(TransformerConfig(**config))).state_dict(), config)
    return load(source, torch_load), load(source, mlx_load)


@torch.inference_mode()
def run(model, x, t, text, parts=None):
    """Velocity as numpy, of either backend."""
    history = None if parts is None else model.history_context(parts)
    t = torch.tensor(t) if isinstance(model, Torch) else mx.array(t)
    return np.asarray(model(model.array(x), t.reshape(-1), model.text_context(text), history))


def error(got, want):
    got, want = (np.asarray(x, np.float32) for x in (got, want))
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))
