"""The adapter's file: a patch embedding for control latents, and perhaps a LoRA that lets the blocks follow it.

One safetensors file: `control_embedding.weight` [d c pt ph pw] and `.bias` [d], LoRA pairs under the usual names, and
metadata that say what it is. Tokens of control latents are added to those of the noisy ones. A design that joins both
along the channels and embeds them by one wider kernel is the same thing: that kernel applied to [x, c] is its part for
x applied to x plus its part for c applied to c. The part for c is what this file holds; a change of the part for x is
a `.diff` of `patch_embedding`, as LoRA files have it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..checkpoint import find_file, headers, numbers
from ..config import TransformerConfig
from ..disk import fingerprint, parse_object
from ..pyramid import POLICIES

KIND = "helios_control"  # the key of the metadata
EMBEDDING = "control_embedding"
ADAPTERS = "controlnet"  # the folder of such files in models/, as in ComfyUI
TINY_ADAPTER = "helios-tiny-control"
TINY_FILE = Path(__file__).parent.parent / "assets" / f"{TINY_ADAPTER}.safetensors"
VERSION = 1


@dataclass(frozen=True)
class AdapterFile:
    """weight [d c pt ph pw] and bias [d], float32. policy: that it was trained with. extractor: what makes its control
    videos, in a word. lora: whether the file changes the model's layers beside."""

    path: Path
    weight: np.ndarray
    bias: np.ndarray
    policy: str
    extractor: str
    lora: bool

    @cached_property
    def identity(self) -> str:
        """Changes with the file."""
        return fingerprint(self.path)


def find_adapter(name) -> Path:
    """An adapter by its path, by its name in models/controlnet, or the one that ships. ValueError for none."""
    if str(name) == TINY_ADAPTER:
        return TINY_FILE
    return Path(find_file(ADAPTERS, str(name)))


def adapter_facts(config: TransformerConfig, policy: str, extractor: str) -> dict[str, str]:
    """The metadata of a new file."""
    facts = {"version": VERSION, "policy": policy, "extractor": extractor, "patch_size": list(config.patch_size)}
    facts |= {"channels": config.in_channels, "width": config.dim}
    return {KIND: json.dumps(facts)}


def read_adapter(path, config: TransformerConfig) -> AdapterFile:
    """A file for a model of that configuration. ValueError for another file, a broken one, or another model's."""
    path = Path(path)
    if path.suffix.lower() not in (".safetensors", ".sft"):
        raise ValueError(f"{path}: a control adapter is read from a .safetensors file")
    header, said = headers.read_header(path), headers.read_metadata(path).get(KIND)
    if said is None or f"{EMBEDDING}.weight" not in header or f"{EMBEDDING}.bias" not in header:
        raise ValueError(
            f"{path.name} is no control adapter of Helios: it holds no {EMBEDDING} with its metadata. Such files are "
            "made by helios train control; ControlNets of other models do not fit"
        )
    facts = parse_object(said, f"{path.name}: {KIND}")
    if facts.get("version") != VERSION or facts.get("policy") not in POLICIES:
        raise ValueError(f"{path.name}: its metadata are not known here ({said[:120]}); update this pack")
    wanted = {f"{EMBEDDING}.weight": (config.dim, config.in_channels, *config.patch_size)}
    wanted[f"{EMBEDDING}.bias"] = (config.dim,)
    found = {name: header[name].shape for name in wanted}
    if found != wanted:
        raise ValueError(
            f"{path.name} was trained for another model: its embedding is {list(found[f'{EMBEDDING}.weight'])}, this "
            f"model's would be {list(wanted[f'{EMBEDDING}.weight'])}"
        )
    weight, bias = (_tensor(path, header[name], name) for name in wanted)
    return AdapterFile(path, weight, bias, facts["policy"], str(facts.get("extractor", "")), _changes(path, header))


def _changes(path: Path, header: dict[str, headers.TensorInfo]) -> bool:
    """Whether what stands beside the embedding changes anything: pairs that were never trained are left out, so that
    not even roundings differ."""
    other = [name for name in header if not name.startswith(EMBEDDING)]
    ups = [name for name in other if ".lora_B." in name]
    if any(".lora_A." not in name and ".lora_B." not in name for name in other):
        return True
    return any(_tensor(path, header[name], name).any() for name in ups)


def _tensor(path: Path, info: headers.TensorInfo, name: str) -> np.ndarray:
    codes = numbers.mapped(path, info.dtype, info.shape, info.start, headers.nbytes(info.dtype, info.shape))
    value = numbers.as_float32(codes, info.dtype)
    if not np.isfinite(value).all():
        raise ValueError(f"{path.name}: {name} holds NaN or infinity; the training diverged or the file is broken")
    return value
