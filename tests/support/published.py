"""A tiny folder in the published layout, and ways to break it."""

import json

import torch
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.checkpoint import inferred
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig, VAEConfig
from safetensors.torch import load_file, save_file

TRANSFORMER = dict(num_attention_heads=2, attention_head_dim=12, rope_dim=(4, 4, 4), ffn_dim=16)
TRANSFORMER |= dict(num_layers=2, text_dim=20, freq_dim=16)
TEXT = dict(vocab_size=8, d_model=20, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
VAE = dict(base_dim=4, dim_mult=(1, 1, 1, 1), num_res_blocks=1)
CONFIG = ModelConfig(transformer=TransformerConfig(**TRANSFORMER), vae=VAEConfig(**VAE))
FILE = "diffusion_pytorch_model.safetensors"


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")


def change(file, function):
    """Rewrites a safetensors file with what `function` makes of its tensors."""
    save_file(function(load_file(file)), file)


def without(*names):
    return lambda tensors: {k: v for k, v in tensors.items() if k not in names}


def make_published(folder):
    """A tiny folder in the published layout, the transformer in two shards."""
    torch.manual_seed(0)
    folder.mkdir()
    for part in ("transformer", "vae", "scheduler", "text_encoder", "tokenizer"):
        (folder / part).mkdir()
    write(folder / "model_index.json", {"_class_name": "HeliosPyramidPipeline", "is_distilled": True})
    write(folder / "transformer" / "config.json", {"_class_name": "HeliosTransformer3DModel", **TRANSFORMER})
    write(folder / "vae" / "config.json", {"_class_name": "AutoencoderKLWan", **VAE})
    write(folder / "scheduler" / "scheduler_config.json", {"_class_name": "HeliosDMDScheduler"})
    state = HeliosTransformer(CONFIG.transformer).state_dict()
    names = sorted(state)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({k: state[k] for k in keys}, folder / "transformer" / file)
    index = {"metadata": {}, "weight_map": {k: file for file, keys in shards.items() for k in keys}}
    write(folder / "transformer" / f"{FILE}.index.json", index)
    save_file(WanVAE(CONFIG.vae).state_dict(), folder / "vae" / FILE)
    text = {"shared.weight": (8, 20), **inferred.umt5(TEXT)}
    save_file({k: torch.zeros(shape) for k, shape in text.items()}, folder / "text_encoder" / "model.safetensors")
    write(folder / "text_encoder" / "config.json", TEXT)
    write(folder / "tokenizer" / "tokenizer.json", {})
    return folder
