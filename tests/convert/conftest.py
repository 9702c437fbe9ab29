"""A published folder to convert."""

import json

import pytest
import torch
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.checkpoint import inferred
from helios_video.helios_core.config.model import TransformerConfig, VAEConfig
from safetensors.torch import save_file
from support.files import TOKENIZER
from support.parts import TEXT, TRANSFORMER, VAE


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published folder whose weights are random, of several types, with a config's every character kept."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published") / "Helios-Mid"
    for part in ("transformer", "vae", "text_encoder", "scheduler", "tokenizer"):
        (folder / part).mkdir(parents=True)
    texts = {
        "model_index.json": {"_class_name": "HeliosPyramidPipeline", "is_cfg_zero_star": True, "note": "\u00fc"},
        "scheduler/scheduler_config.json": {"_class_name": "HeliosScheduler"},
        "generation_config.json": {"width": 128, "height": 64},
        "transformer/config.json": TRANSFORMER,
        "vae/config.json": VAE,
        "text_encoder/config.json": TEXT,
    }
    for name, value in texts.items():
        (folder / name).write_bytes(json.dumps(value, indent=3, ensure_ascii=False).encode())
    for name, data in TOKENIZER.items():
        (folder / "tokenizer" / name).write_bytes(data)
    transformer = HeliosTransformer(TransformerConfig(**TRANSFORMER)).state_dict()
    transformer = {
        k: torch.randn_like(v) if "table" in k else torch.randn_like(v).bfloat16() for k, v in transformer.items()
    }
    save_file(transformer, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    vae = {name: torch.randn_like(v) for name, v in WanVAE(VAEConfig(**VAE)).state_dict().items()}
    save_file(vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
    umt5 = {"shared.weight": (60, 16), **inferred.umt5(TEXT)}
    save_file({k: torch.randn(s).half() for k, s in umt5.items()}, folder / "text_encoder" / "model.safetensors")
    return folder
