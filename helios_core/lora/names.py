"""Names in LoRA files: what a key says of which layer, in every form in use, and whose file it seems to be.

Forms: PEFT and diffusers (`transformer.blocks.0.attn1.to_q.lora_A.weight`), Wan's own names as ComfyUI and Wan's
trainers save them (`diffusion_model.blocks.0.self_attn.q.lora_down.weight`), kohya and musubi
(`lora_unet_blocks_0_self_attn_q`), LyCORIS (`lycoris_...`), DiffSynth (`pipe.dit....`); all of a path's dots may be
underscores, or some (`lora_unet_blocks_12.self_attn.k`). No framework here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..checkpoint import PULL_REQUEST, PULL_REQUEST_BLOCK, recognise

PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.", "pipe.dit.")
PREFIXES += ("lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_")
# Published name -> Wan's own name, for the parts of a path that differ.
WAN = (
    *((published, wan) for wan, published in (PULL_REQUEST | PULL_REQUEST_BLOCK).items()),
    ("norm_out.scale_shift_table", "head.modulation"),
    ("scale_shift_table", "modulation"),
    ("proj_out", "head.head"),
    (".norm2", ".norm3"),
    (".attn1", ".self_attn"),
    (".attn2", ".cross_attn"),
    (".to_out.0", ".o"),
    (".to_q", ".q"),
    (".to_k", ".k"),
    (".to_v", ".v"),
)
ADAPTER = r"(?:\.[^.]+?)??(?:\.(?P<leaf>weight|bias))?"  # PEFT's name of an adapter, mostly left out
LOW_RANK = r"(?P<path>.+?)[._]lora(?:_linear_layer)?[._](?P<side>A|B|down|up|mid)" + ADAPTER
MATRIX = r"(?P<path>.+?)\.(?P<role>(?:hada|lokr)_(?:w[12](?:_[ab])?|t[12]))" + ADAPTER
MAGNITUDE = r"(?P<path>.+?)\.(?P<role>dora_scale|lora_magnitude_vector)" + ADAPTER
SIDES = {"A": "down", "down": "down", "B": "up", "up": "up", "mid": "mid"}
MAGNITUDES = {"dora_scale": "dora", "lora_magnitude_vector": "dora_rows"}
SUFFIXES = {".alpha": "alpha", ".diff": "add", ".diff_b": "add_bias", ".set_weight": "set", ".weight": "set"}
SUFFIXES |= {".bias": "set_bias", ".w_norm": "add", ".b_norm": "add_bias"}  # the last two: LyCORIS, of norms
OTHER_KINDS = {"oft_": "OFT", "boft": "BOFT", "hra_": "HRA", "ia3_": "IA3", "vera_": "VeRA"}
MATRICES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1", "lokr_w2")
MATRICES += ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
# Role -> the end of a key as ComfyUI's own loader knows it.
USUAL = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight", "alpha": "alpha"}
USUAL |= {"add": "diff", "add_bias": "diff_b", "dora": "dora_scale", "dora_rows": "dora_scale"}
USUAL |= {role: role for role in MATRICES}
FAMILIES = (
    (r"lora_te2|input_blocks|text_model", "Stable Diffusion or SDXL"),
    (r"(down|up)_blocks|mid_block|middle_block", "Stable Diffusion or SDXL"),
    (r"joint_blocks", "Stable Diffusion 3"),
    (r"double_blocks|single_blocks|single_transformer_blocks", "Flux or HunyuanVideo"),
    (r"transformer_blocks", "Flux, Stable Diffusion 3, LTX, CogVideoX or Qwen-Image"),
    (r"(context|noise)_refiner", "Lumina or Z-Image"),
    (r"model[._]layers", "a language model"),
)
WIDTHS = {1536: "Wan 2.1 1.3B", 3072: "Wan 2.2 5B", 5120: "Wan 14B or Helios 14B"}


class Part(NamedTuple):
    """What a key holds: a layer's path as the file writes it, and its role there.

    down, up, mid, alpha, bias of a LoRA; the matrices of a LoHa or LoKr by their own names; dora, dora_rows: lengths,
    the second surely of rows; add, add_bias: differences; set, set_bias: whole values.
    """

    path: str
    role: str


def parse(key: str) -> Part | None:
    """A key into path and role; None for a key of no known form."""
    key = key.replace(".diff_m", ".modulation.diff")
    if match := re.fullmatch(LOW_RANK, key):
        side = SIDES[match["side"]]
        return Part(strip(match["path"]), "bias" if match["leaf"] == "bias" else side)
    for pattern, roles in ((MATRIX, {}), (MAGNITUDE, MAGNITUDES)):
        if match := re.fullmatch(pattern, key):
            return Part(strip(match["path"]), roles.get(match["role"], match["role"]))
    for suffix, role in SUFFIXES.items():
        if key.endswith(suffix):
            return Part(strip(key.removesuffix(suffix)), role)
    return Part(strip(key), "set") if key.endswith(("scale_shift_table", "modulation")) else None


def strip(path: str) -> str:
    """Without the prefixes that trainers put before a layer's path."""
    while prefix := next((p for p in PREFIXES if path.startswith(p)), ""):
        path = path.removeprefix(prefix)
    return path


def aliases(names) -> dict[str, str]:
    """A layer or a table as `flat` writes it, by either name -> its published path. names: the model's parameters."""
    paths = {name if name.endswith("scale_shift_table") else name.rpartition(".")[0] for name in names}
    return {flat(form): path for path in paths for form in (path, wan_name(path))}


def flat(path: str) -> str:
    """With underscores for all dots: how a path is looked up, whichever of them a file has."""
    return path.replace(".", "_")


def key_forms(names) -> dict[str, str]:
    """Every way in which a LoRA file may begin the keys of a layer or a table -> the model's parameter. For programs
    that read LoRAs by such a list. names: the model's parameters."""
    parameters = set(names)
    found = {}
    for path in set(aliases(parameters).values()):
        parameter = path if path in parameters else f"{path}.weight"
        for form in (path, wan_name(path)) if parameter in parameters else ():
            for prefix in ("", *PREFIXES):
                found[prefix + form] = found[prefix + flat(form)] = parameter
    return found


def usual_keys(keys, names) -> dict[str, str]:
    """Keys of a LoRA file -> how ComfyUI writes them, of those that the model has a layer for.

    names: the model's parameters.
    """
    paths, found = aliases(names), {}
    for key in keys:
        part = parse(key)
        if part and part.role in USUAL and (layer := paths.get(flat(part.path))):
            found.setdefault(f"diffusion_model.{layer}.{USUAL[part.role]}", key)
    return {key: usual for usual, key in found.items()}


def wan_name(path: str) -> str:
    """Wan's own name of a published path."""
    for published, wan in WAN:
        path = path.replace(published, wan)
    return path


def other_kind(names) -> str | None:
    """The adapter method of a file that is no plain LoRA, with one of its keys; None for a LoRA."""
    return next((f"{kind} ({key})" for key in names for part, kind in OTHER_KINDS.items() if part in key), None)


def seems(shapes: dict[str, tuple[int, ...]]) -> str:
    """What a file is, going by its keys and shapes, for an error message."""
    parts = {key: parse(key) for key in shapes}
    if not any(part and part.role in ("down", "up", *MATRICES) for part in parts.values()):
        found = recognise.of_names([strip(key) for key in shapes])
        return f"it holds no low-rank pairs, so it is no LoRA{f' but seems to be {found}' if found else ''}"
    for pattern, family in FAMILIES:
        if any(re.search(pattern, key) for key in shapes):
            return f"it seems to be a LoRA of {family}"
    widths = [
        shapes[k][-1] for k, p in parts.items() if p and p.role == "down" and re.search(r"attn1?[._](to_)?q$", p.path)
    ]
    if widths:
        return f"it seems to be a LoRA of {WIDTHS.get(widths[0], 'a model')}, width {widths[0]}"
    return f"its layers, such as {next(iter(shapes))}, are of no model known here"


def summary(paths) -> str:
    """Paths with their block numbers left out and counted: "blocks.*.cross_attn.k_img (40)"."""
    counts: dict[str, int] = {}
    for path in paths:
        pattern = re.sub(r"(?<=[._])\d+(?=[._])", "*", path, count=1)
        counts[pattern] = counts.get(pattern, 0) + 1
    shown = [f"{pattern} ({count})" if count > 1 else pattern for pattern, count in counts.items()]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
