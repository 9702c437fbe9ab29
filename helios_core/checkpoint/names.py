"""The names that tensors have in the files people hold, and the published names that the backends use.

The published names are diffusers' (transformer, VAE) and Hugging Face's (text encoder). Sources of the others: ComfyUI
pull request 12765 for the transformer, the Wan 2.1 repository for the VAE, ComfyUI's ops.py and utils.py for scales.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Prefixes of a file with one part, longest first.
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "text_encoders.umt5xxl.transformer.")
PREFIXES += ("umt5xxl.transformer.", "first_stage_model.", "vae.")
# Prefixes of a file that holds a whole checkpoint, as ComfyUI's own: the first is the one that is written.
WHOLE = {
    "transformer": ("model.diffusion_model.",),
    "vae": ("vae.", "first_stage_model."),
    "text_encoder": ("text_encoders.umt5xxl.transformer.",),
}
SPIECE = "spiece_model"  # the bytes of a sentencepiece model, beside the weights
MARKER = "scaled_fp8"  # an empty tensor that says "weights here are scaled"
SCALES = (".scale_weight", ".weight_scale")  # the factor of a weight: older files, newer files
ZERO = ".zero_weight"  # what code 0 stands for in int4 (backends/torch/quant.py)
LAYER_FORMAT = ".comfy_quant"  # a layer's number format as JSON bytes, in newer files
FORMATS = "_quantization_metadata"  # the same for all layers, in the metadata
DROPPED = (".scale_input", ".input_scale")  # factors of activations, for products in fp8

# Old files hold the output norm's table at the top level.
TRANSFORMER = {"scale_shift_table": "norm_out.scale_shift_table"}
PULL_REQUEST = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
}
# Wan's own names, where the pull request has the published ones; some converters give them to Helios too.
WAN_TRANSFORMER = {"head.modulation": "norm_out.scale_shift_table"}
WAN_INNER = {
    **{f"self_attn.{x}": f"attn1.to_{x}" for x in "qkv"},
    **{f"cross_attn.{x}": f"attn2.to_{x}" for x in "qkv"},
    **{"self_attn.o": "attn1.to_out.0", "cross_attn.o": "attn2.to_out.0", "norm3": "norm2"},
    **{"self_attn": "attn1", "cross_attn": "attn2"},
}
PULL_REQUEST_BLOCK = {"ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2"}

WAN = {"conv1": "quant_conv", "conv2": "post_quant_conv"}
WAN_CODER = {
    **{"conv1": "conv_in", "head.0": "norm_out", "head.2": "conv_out", "downsamples": "down_blocks"},
    **{"middle.0": "mid_block.resnets.0", "middle.1": "mid_block.attentions.0", "middle.2": "mid_block.resnets.1"},
}
WAN_BLOCK = {
    **{"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2"},
    "shortcut": "conv_shortcut",
}


def split_parts(names: Iterable[str]) -> dict[str, dict[str, str]] | None:
    """Of a whole checkpoint in one file: part -> short name -> name in the file. None for a file of one part."""
    names = list(names)
    parts = {
        part: {name[len(prefix) :]: name for prefix in prefixes for name in names if name.startswith(prefix)}
        for part, prefixes in WHOLE.items()
    }
    return parts if sum(map(bool, parts.values())) > 1 else None


def strip_prefix(names: Iterable[str]) -> dict[str, str]:
    """Of a file with one part: short name -> name in the file."""
    names = list(names)
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in names)), "")
    return {name.removeprefix(prefix): name for name in names}


def published(part: str, names: Iterable[str]) -> dict[str, str]:
    """Published name -> given name, for the short names of one part's weights. ValueError if two become one."""
    names = list(names)
    if part == "transformer":
        renamed = [transformer_name(name) for name in names]
    elif part == "vae" and any(name.startswith("decoder.upsamples.") for name in names):
        per_level = _per_level(names)
        renamed = [wan_to_published(name, per_level) for name in names]
    else:
        renamed = names
    found = dict(zip(renamed, names, strict=True))
    if len(found) < len(names):
        double = sorted(name for name in found if renamed.count(name) > 1)
        raise ValueError(f"two tensors are both {', '.join(double[:5])}; the file mixes two naming schemes")
    return found


def transformer_name(name: str) -> str:
    """A transformer's tensor from an old file or a file of the pull request -> its published name."""
    name = (TRANSFORMER | WAN_TRANSFORMER).get(name, name)
    if name.startswith("blocks."):
        name = _swap_inner(re.sub(r"\.modulation$", ".scale_shift_table", name), WAN_INNER)
    name = _swap(name, {"head.head": "proj_out"})
    return _swap(_swap_inner(name, PULL_REQUEST_BLOCK), PULL_REQUEST)


def pull_request_name(name: str) -> str:
    """The way back, for writing ComfyUI's files."""
    return _swap(_swap_inner(name, _turn(PULL_REQUEST_BLOCK)), _turn(PULL_REQUEST))


def wan_to_published(name: str, per_level: int) -> str:
    """A tensor of the Wan 2.1 VAE. per_level: layers of a decoder level, its upsampler among them."""
    coder, _, rest = name.partition(".")
    if coder not in ("encoder", "decoder"):
        return _swap(name, WAN)
    if up := re.fullmatch(r"upsamples\.(\d+)\.(.+)", rest):
        level, layer = divmod(int(up[1]), per_level)
        place = "upsamplers.0" if layer == per_level - 1 else f"resnets.{layer}"
        rest = f"up_blocks.{level}.{place}.{up[2]}"
    return f"{coder}.{_swap_inner(_swap(rest, WAN_CODER), WAN_BLOCK)}"


def wan_name(name: str, per_level: int) -> str:
    """The way back, for writing ComfyUI's files."""
    coder, _, rest = name.partition(".")
    if coder not in ("encoder", "decoder"):
        return _swap(name, _turn(WAN))
    if up := re.fullmatch(r"up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.(.+)", rest):
        layer = per_level - 1 if up[2] == "upsamplers" else int(up[3])
        rest = f"upsamples.{int(up[1]) * per_level + layer}.{up[4]}"
    return f"{coder}.{_swap(_swap_inner(rest, _turn(WAN_BLOCK)), _turn(WAN_CODER))}"


def wan_names(names: Iterable[str]) -> dict[str, str]:
    """Published name -> Wan's own name, for a VAE's tensors."""
    names = list(names)
    resnets = {m[1] for name in names if (m := re.match(r"decoder\.up_blocks\.0\.resnets\.(\d+)\.", name))}
    return {name: wan_name(name, len(resnets) + 1) for name in names}


def _per_level(names: list[str]) -> int:
    """Each level of the decoder but the last ends with a resampling."""
    ends = [int(m[1]) for name in names if (m := re.match(r"decoder\.upsamples\.(\d+)\.resample\.", name))]
    return min(ends, default=10**6) + 1


def _swap(name: str, table: dict[str, str]) -> str:
    """Replaces the name's beginning by the table, whole dotted segments only."""
    for old, new in table.items():
        if name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name


def _swap_inner(name: str, table: dict[str, str]) -> str:
    """The same, past the first segment."""
    for old, new in table.items():
        if f".{old}." in name:
            return name.replace(f".{old}.", f".{new}.", 1)
    return name


def _turn(table: dict[str, str]) -> dict[str, str]:
    return {new: old for old, new in table.items()}
