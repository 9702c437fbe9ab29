"""What a file seems to be, by its first bytes or by its tensors' names, so that a wrong file is refused by name."""

from __future__ import annotations

from collections.abc import Collection

PARTS = {
    "transformer": "a Helios transformer (one with patch_short, patch_mid and patch_long)",
    "vae": "the Wan 2.1 VAE (wan_2.1_vae.safetensors, or the checkpoint's own vae folder)",
    "text_encoder": "a UMT5-XXL text encoder (umt5_xxl_fp16.safetensors or umt5_xxl_fp8_e4m3fn_scaled.safetensors)",
}
OURS = {
    "transformer": "a Helios transformer",
    "vae": "a Wan 2.1 VAE",
    "text_encoder": "a UMT5 text encoder",
}

# First bytes of files that are no safetensors, lower-cased. What it seems to be; what to do.
MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"),
    (b"pk\x03\x04", "a torch pickle or another zip", "pickles can run code and are not read; take a safetensors file"),
    (b"\x80\x02", "a torch pickle", "pickles can run code and are not read; take a safetensors file"),
    (b"\x80\x04", "a Python pickle", "pickles can run code and are not read; take a safetensors file"),
    (b"<!doctype", "a web page, such as an error or a log-in page", "download the file again"),
    (b"<html", "a web page, such as an error or a log-in page", "download the file again"),
    (b"<?xml", "an XML answer of a server, such as an error", "download the file again"),
    (b"{", "a JSON text, such as a server's error message", "download the file again"),
    (b"\x93numpy", "a numpy array", "take a safetensors file"),
)

# Every name of a row is among the file's; the first row that fits decides.
KINDS = (
    (OURS["transformer"], ("patch_long.weight",)),
    ("a Wan 2.2 VAE (48 channels)", ("decoder.upsamples.0.upsamples.0.residual.2.weight",)),
    (OURS["vae"], ("decoder.middle.0.residual.0.gamma", "encoder.conv1.weight")),
    (OURS["vae"], ("decoder.mid_block.resnets.0.norm1.gamma", "quant_conv.weight")),
    ("a Wan 2.1 VAE without its encoder", ("decoder.middle.0.residual.0.gamma",)),
    ("a Wan transformer", ("blocks.0.self_attn.q.weight", "patch_embedding.weight")),
    ("a Wan transformer", ("blocks.0.attn1.to_q.weight", "condition_embedder.time_proj.weight")),
    (OURS["text_encoder"], ("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",)),
    ("a T5 text encoder such as t5xxl, which is not UMT5", ("encoder.block.1.layer.0.SelfAttention.q.weight",)),
    ("a UMT5 text encoder in Wan's own key names", ("blocks.0.attn.q.weight", "token_embedding.weight")),
    ("a CLIP text encoder", ("text_model.encoder.layers.0.self_attn.q_proj.weight",)),
    ("a CLIP text encoder", ("transformer.resblocks.0.attn.in_proj_weight",)),
    ("a CLIP vision encoder", ("vision_model.encoder.layers.0.self_attn.q_proj.weight",)),
    ("a language model used as text encoder", ("model.layers.0.self_attn.q_proj.weight",)),
    ("an LTX video transformer", ("transformer_blocks.0.attn1.to_q.weight", "patchify_proj.weight")),
    (
        "a HunyuanVideo transformer",
        ("double_blocks.0.img_attn.norm.key_norm.scale", "txt_in.individual_token_refiner.blocks.0.norm1.weight"),
    ),
    ("a HunyuanVideo transformer", ("double_blocks.0.img_attn_qkv.weight",)),
    (
        "a HunyuanVideo transformer",
        ("transformer_blocks.0.attn.norm_added_q.weight", "context_embedder.proj_in.weight"),
    ),
    ("a Flux transformer", ("double_blocks.0.img_attn.norm.key_norm.scale",)),
    ("a Flux transformer", ("single_transformer_blocks.0.attn.to_q.weight",)),
    ("a Qwen-Image transformer", ("transformer_blocks.0.attn.add_q_proj.weight", "txt_norm.weight")),
    ("a Stable Diffusion 3 transformer", ("joint_blocks.0.x_block.attn.qkv.weight",)),
    ("a Stable Diffusion model", ("input_blocks.0.0.weight",)),
    ("a Stable Diffusion model", ("down_blocks.0.resnets.0.conv1.weight",)),
    ("an image VAE of Stable Diffusion or Flux", ("decoder.mid.block_1.conv1.weight",)),
    (
        "an image VAE of Stable Diffusion or Flux",
        ("decoder.mid_block.resnets.0.conv1.weight", "decoder.conv_in.weight"),
    ),
)
LORA = (".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight", ".lora.down.weight")
LORA += (".lora_A.default.weight", ".hada_w1_a", ".lokr_w1", ".lokr_w1_a", ".lokr_w2", ".lokr_w2_a")


def of_bytes(start: bytes) -> str:
    """What no safetensors file seems to be, as the rest of a sentence; empty if nothing is known."""
    start = start.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for magic, what, advice in MAGIC:
        if start.startswith(magic):
            return f"it seems to be {what}; {advice}"
    return ""


def of_names(names: Collection[str]) -> str | None:
    """What a safetensors file seems to hold, by its names without a prefix; None if nothing is known."""
    names = set(names)
    if any(name.endswith(LORA) for name in names):
        return "a LoRA, which goes with a model and is none"
    return next((what for what, marks in KINDS if names.issuperset(marks)), None)


def part_of(names: Collection[str]) -> str | None:
    """Which part of a checkpoint a file of these names is, if any."""
    found = of_names(names)
    return next((part for part, what in OURS.items() if what == found), None)


def check(path, part: str, names: Collection[str]) -> None:
    """Refuses a file that clearly is something else, such as a Wan transformer where a Helios one is wanted.

    ValueError names what it seems to be.
    """
    found = of_names(names)
    if found and found != OURS[part]:
        raise ValueError(f"{path} seems to be {found}; wanted {PARTS[part]}")
