"""A small transformer with random weights, once as diffusers' and once as ours, and what it is given."""

import torch
from diffusers import HeliosTransformer3DModel
from helios_video.helios_core.backends.torch.transformer import FLOAT32, HeliosTransformer
from helios_video.helios_core.config.model import TransformerConfig
from helios_video.helios_core.history.window import History

SIZES = dict(num_attention_heads=2, attention_head_dim=24, rope_dim=(8, 8, 8), ffn_dim=64)
SIZES |= dict(num_layers=2, text_dim=20, freq_dim=32)
PARITY = 2e-5


def perturb(model):
    """No parameter stays at a value that could hide a mistake, such as a norm's 1 or a bias's 0."""
    for name, p in model.named_parameters():
        if p.ndim == 1:
            torch.nn.init.normal_(p, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.3)
        elif "scale_shift_table" in name:
            torch.nn.init.normal_(p, std=0.5)
        else:
            p.data += 0.3 * p.data.std() * torch.randn_like(p)
    return model.eval()


def pair(seed=0, fused=False, **sizes):
    """diffusers' model and ours with the same weights."""
    torch.manual_seed(seed)
    oracle = perturb(HeliosTransformer3DModel(**{**SIZES, **sizes}))
    ours = HeliosTransformer(TransformerConfig(**{**SIZES, **sizes})).eval()
    ours.load_state_dict(oracle.state_dict(), strict=True)
    return oracle, ours.fuse() if fused else ours


def random_history(h, w, b=1, frames=9, sizes=(16, 2, 1), keep_first_frame=True):
    window = torch.randn(b, 16, History.length(sizes, keep_first_frame), h, w)
    anchor = torch.randn(b, 16, 1, h, w) if keep_first_frame else None
    return History(window, anchor, sizes, keep_first_frame).parts(frames)


def prompt(b=1, tokens=32, used=(12, 20)):
    text = torch.randn(b, tokens, SIZES["text_dim"])
    for row, length in zip(text, used):
        row[length:] = 0
    return text


@torch.inference_mode()
def run_oracle(model, x, t, text, parts=None):
    dtype, given = model.dtype, {}
    if parts is not None:
        given["indices_hidden_states"] = torch.tensor([parts.current_index])
        for name in ("short", "mid", "long"):
            given[f"indices_latents_history_{name}"] = torch.tensor([getattr(parts, f"{name}_index")])
            given[f"latents_history_{name}"] = getattr(parts, name).to(dtype)
    t = torch.as_tensor(t).expand(len(x))
    return model(x.to(dtype), t, text.to(dtype), **given, return_dict=False)[0].float()


@torch.inference_mode()
def run_ours(model, x, t, text, parts=None):
    history = None if parts is None else model.history_context(parts)
    return model(x, torch.as_tensor(t).reshape(-1), model.text_context(text), history)


def error(got, want):
    return float((got - want).norm() / want.norm())


def to_bf16(model):
    for name, p in model.named_parameters():
        if not any(part in name for part in FLOAT32):
            p.data = p.data.bfloat16()
    return model
