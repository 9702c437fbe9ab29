"""What the LoRA tests share: a tiny random model, LoRA files in every key form, and the weights they should give."""

from __future__ import annotations

import numpy as np
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends import torch as adapter
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.config.model import TransformerConfig
from helios_video.helios_core.history.window import History
from helios_video.helios_core.lora import changes, names
from helios_video.helios_core.with_loras import read_files
from safetensors.torch import save_file

SIZES = dict(num_attention_heads=2, attention_head_dim=24, rope_dim=(8, 8, 8), ffn_dim=64)
SIZES |= dict(num_layers=2, text_dim=20, freq_dim=32)
CONFIG = TransformerConfig(**SIZES)
SHAPES = adapter.shapes(CONFIG)
ATTENTION = [f"attn{i}.{name}" for i in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")]
IN_BLOCK = [*ATTENTION, "ffn.net.0.proj", "ffn.net.2"]
BLOCKS = [f"blocks.{i}.{name}" for i in range(2) for name in IN_BLOCK]
OUTSIDE = ["condition_embedder.time_embedder.linear_1", "condition_embedder.time_embedder.linear_2"]
OUTSIDE += ["condition_embedder.time_proj", "condition_embedder.text_embedder.linear_1", "proj_out"]
SAME = 1e-5


def make_model(state=None, fuse=True, **sizes):
    torch.manual_seed(0)
    model = HeliosTransformer(TransformerConfig(**{**SIZES, **sizes})).eval().requires_grad_(False)
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    if state is not None:
        model.load_state_dict(state)
    return model.fuse() if fuse else model


def make_pairs(layers=BLOCKS, rank=4, seed=1, size=0.1):
    """layer -> (down [r ...], up [o r ...])."""
    g = torch.Generator().manual_seed(seed)
    pairs = {}
    for layer in layers:
        out, *inner = SHAPES[f"{layer}.weight"]
        down = torch.randn(rank, *inner, generator=g) * size
        pairs[layer] = (down, torch.randn(out, rank, *[1] * (len(inner) - 1), generator=g) * size)
    return pairs


def peft(pairs, prefix="transformer.", sides=("lora_A", "lora_B"), name=lambda layer: layer):
    return {
        f"{prefix}{name(layer)}.{side}.weight": tensor
        for layer, pair in pairs.items()
        for side, tensor in zip(sides, pair, strict=True)
    }


def write(folder, tensors, name="lora.safetensors", **metadata):
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / name, metadata or None)
    return folder / name


def by_hand(state, *changes):
    """The weights with each (pairs, factor) added, in float64."""
    new = {name: p.double() for name, p in state.items()}
    for pairs, factor in changes:
        for layer, (down, up) in pairs.items():
            product = up.double().flatten(1) @ down.double().flatten(1)
            new[f"{layer}.weight"] = new[f"{layer}.weight"] + factor * product.view(new[f"{layer}.weight"].shape)
    return {name: p.float() for name, p in new.items()}


def adapted(model, loras, merge=False, companion=None):
    files = read_files(loras, CONFIG, SHAPES)
    return adapter.adapt(model, changes.read_changes(files, companion, CONFIG, SHAPES), merge=merge)


@torch.inference_mode()
def run(model, history=True):
    """A forward with history and a padded prompt, everything computed from the model."""
    parts, text, x = inputs()
    context = model.history_context(parts) if history else None
    return model(x, torch.tensor([400.0]), model.text_context(text), context)


def run_mlx(model):
    """The same on MLX, as a numpy array."""
    parts, text, x = inputs()
    velocity = model.velocity(model.array(x), 400.0, model.text_context(text), model.history_context(parts))
    return np.array(velocity)


def inputs():
    """A history's parts, a padded prompt and latents."""
    g = torch.Generator().manual_seed(3)
    window = torch.randn(1, 16, History.length((16, 2, 1), True), 8, 8, generator=g)
    parts = History(window, torch.randn(1, 16, 1, 8, 8, generator=g)).parts(3)
    text = torch.randn(1, 12, SIZES["text_dim"], generator=g)
    text[:, 7:] = 0
    return parts, text, torch.randn(1, 16, 3, 8, 8, generator=g)


def error(got, want):
    return float((got - want).norm() / want.norm())


def kohya(layer):
    return names.wan_name(layer).replace(".", "_")


def in_unet(pairs):
    return peft(pairs, "unet.", ("lora.down", "lora.up"))


def mixed(count, name=lambda layer: layer):
    """The first dots as underscores, as some trainers leave the others."""
    return lambda layer: name(layer).replace(".", "_", count)


FORMS = {
    "diffusers": lambda pairs: peft(pairs),
    "bare": lambda pairs: peft(pairs, ""),
    "peft": lambda pairs: peft(pairs, "base_model.model."),
    "peft of a pipeline": lambda pairs: peft(pairs, "base_model.model.transformer."),
    "peft adapter name": lambda pairs: peft(pairs, sides=("lora_A.default", "lora_B.default")),
    "diffusers, down and up": lambda pairs: peft(pairs, sides=("lora.down", "lora.up")),
    "wan": lambda pairs: peft(pairs, "diffusion_model.", name=names.wan_name),
    "wan, down and up": lambda pairs: peft(pairs, "diffusion_model.", ("lora_down", "lora_up"), names.wan_name),
    "published names under comfyui's prefix": lambda pairs: peft(pairs, "model.diffusion_model."),
    "diffsynth": lambda pairs: peft(pairs, "pipe.dit.", ("lora_A.default", "lora_B.default"), names.wan_name),
    "kohya": lambda pairs: peft(pairs, "lora_unet_", ("lora_down", "lora_up"), kohya),
    "wan fun": lambda pairs: peft(pairs, "lora_unet__", ("lora_down", "lora_up"), kohya),
    "lycoris": lambda pairs: peft(pairs, "lycoris_", ("lora_down", "lora_up"), lambda n: n.replace(".", "_")),
    "kohya, some dots": lambda pairs: peft(pairs, "lora_unet_", ("lora_down", "lora_up"), mixed(1, names.wan_name)),
    "bare, some dots": lambda pairs: peft(pairs, "", ("lora_down", "lora_up"), mixed(1, names.wan_name)),
    "lycoris, some dots": lambda pairs: peft(pairs, "lycoris_", ("lora_down", "lora_up"), mixed(2)),
    "transformer, some dots": lambda pairs: peft(pairs, "lora_transformer_", ("lora_A", "lora_B"), mixed(2)),
    "dots first": lambda pairs: peft(
        pairs, "", name=lambda n: n.replace(".", "#", 2).replace(".", "_").replace("#", ".")
    ),
    "old diffusers": lambda pairs: {k.replace(".lora.", "_lora."): x for k, x in in_unet(pairs).items()},
}


def pair_of(name, down=(4, 320), up=(320, 4), sides=("lora_down", "lora_up")):
    return {f"{name}.{sides[0]}.weight": torch.ones(down), f"{name}.{sides[1]}.weight": torch.ones(up)}


def companion(folder, heads=2, **more):
    tensors = {f"{p}.{leaf}": torch.randn(SHAPES[f"{p}.{leaf}"]) for p in PATCHES for leaf in ("weight", "bias")}
    tensors |= {f"blocks.{i}.attn1.history_key_scale": torch.randn(heads) for i in range(2)} if heads else {}
    tensors |= {"gan_final_head.weight": torch.ones(2), "blocks.0.attn1.q_loras.down.weight": torch.ones(2, 48), **more}
    torch.save(tensors, folder / "transformer_partial.pth")
    return folder / "transformer_partial.pth", tensors


PATCHES = ("patch_short", "patch_mid", "patch_long")


def tiny_lora(folder, helios, name="tiny.safetensors", seed=1, size=0.3):
    shapes = adapter.shapes(helios.config.transformer)
    layers = [n.removesuffix(".weight") for n in shapes if ".attn" in n and n.endswith("to_v.weight")]
    g = torch.Generator().manual_seed(seed)
    pairs = {n: tuple(size * torch.randn(*s, generator=g) for s in ((4, shapes[f"{n}.weight"][1]),
             (shapes[f"{n}.weight"][0], 4))) for n in layers}  # fmt: skip
    return write(folder, peft(pairs), name)


def one_chunk(helios):
    positive = torch.ones(1, 4, helios.config.transformer.text_dim)
    *_, step = helios.sample(helios.history(64, 64), positive, seed=1, steps=(1, 1, 1), boost_first_chunk=False)
    return step.latent


FOREIGN = {
    "Stable Diffusion or SDXL": pair_of("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"),
    "Flux or HunyuanVideo": pair_of("lora_unet_double_blocks_0_img_attn_proj"),
    "Flux, Stable Diffusion 3, LTX": pair_of("transformer.transformer_blocks.0.attn.to_q", sides=("lora_A", "lora_B")),
    "Wan 2.1 1.3B, width 1536": pair_of("diffusion_model.blocks.0.self_attn.q", (4, 1536), (1536, 4)),
    "Wan 14B or Helios 14B, width 5120": pair_of("transformer.blocks.0.attn1.to_q", (4, 5120), (5120, 4)),
    "of no model known here": pair_of("lora_unet_something_else"),
    "so it is no LoRA but seems to be a Helios transformer": {
        "patch_long.weight": torch.ones(SHAPES["patch_long.weight"])
    },
}


def lora_folder(root):
    """models/loras of a folder, with two LoRAs of helios-tiny and other files."""
    folder = root / "models" / "loras"
    folder.mkdir(parents=True)
    helios = load()
    tiny_lora(folder, helios, "a.safetensors")
    tiny_lora(folder / "sub", helios, "b.safetensors", seed=2)
    (folder / "other").mkdir()
    for name in ("c.pt", "d.ckpt", "other/transformer_partial.pth", "notes.txt"):
        (folder / name).write_bytes(b"")
    return folder
