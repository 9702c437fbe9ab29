"""LoRA files: which tensors change which layer of the model, how strongly, and what does not fit. Headers only.

A layer's weight becomes W + strength * scale * up @ down, with scale = alpha / rank, or alpha / sqrt(rank) where the
file says that it is rank-stabilised (arXiv:2312.03732), or 1 where no alpha is stated. Files of Wan trainers also hold
plain differences (`.diff`, `.diff_b`), and the official training files whole norm weights. No framework here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .. import json_text
from ..checkpoint import headers
from .names import Part, aliases, other_kind, parse, seems, strip, summary

MODES = ("auto", "apply", "merge")
MAX_STRENGTH = 100.0
# In the official companion file: training only, or of a self-attention that no released checkpoint has.
LEFTOVERS = ("gan_heads.", "gan_final_head.", ".q_loras.", ".k_loras.", ".v_loras.")
COMPANION = "transformer_partial.pth"


class Pair(NamedTuple):
    """Keys of one low-rank pair and of what scales it. stated: the scale that the metadata gives, if any."""

    down: str
    up: str
    alpha: str | None
    bias: str | None
    rank: int
    stable: bool
    stated: float | None

    def scale(self, alpha: float | None) -> float:
        """alpha: the value of the tensor of that name, if the file has one; it goes before the metadata's."""
        alpha = self.stated if alpha is None else alpha
        return 1.0 if alpha is None else alpha / (math.sqrt(self.rank) if self.stable else self.rank)


@dataclass(frozen=True)
class LoraFile:
    """What one file changes. pairs: layer -> Pair; added, replaced: parameter -> key in the file."""

    path: Path
    pairs: dict[str, Pair]
    added: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Layers that it changes."""
        return len({*self.pairs, *(name.rpartition(".")[0] for name in (*self.added, *self.replaced))})

    def report(self, strength: float) -> str:
        """One line: how much of the file is used, and what is not and why."""
        line = f"{self.path.name} at {strength:g}: {self.count} layers changed"
        return f"{line}. Not used: {'; '.join(self.unused)}" if self.unused else line


def check_strength(strength: float) -> float:
    """ValueError unless it is a finite number of sensible size."""
    if not math.isfinite(strength) or abs(strength) > MAX_STRENGTH:
        raise ValueError(
            f"LoRA strength {strength}: wanted a number from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}, mostly 1"
        )
    return float(strength)


def read_lora(path, shapes: dict[str, tuple[int, ...]]) -> LoraFile:
    """A LoRA file for a model with parameters of these shapes. ValueError for a broken, foreign or DoRA file."""
    path = Path(path)
    if path.suffix.lower() not in (".safetensors", ".sft"):
        raise ValueError(f"{path}: a LoRA is read from a .safetensors file; torch pickles are not, but for {COMPANION}")
    header, facts = headers.read_header(path), read_facts(path)
    found = {key: info.shape for key, info in header.items()}
    kind = "DoRA (its metadata)" if facts.get("use_dora") is True else other_kind(found)
    if kind:
        raise ValueError(f"{path.name} is a {kind}; this pack reads plain LoRA. Merge it with its own tool first")
    layers = _by_layer(path, found)
    file = _fit(path, layers, found, shapes, facts)
    if not file.pairs and not file.added:
        raise ValueError(f"nothing of {path.name} fits this model: {seems(found)}. {'; '.join(file.unused)}")
    return file


def _by_layer(path: Path, found: dict) -> dict[str, dict[str, str]]:
    """Layer as the file names it -> role -> key. ValueError for half a pair, or ranks that differ."""
    layers: dict[str, dict[str, str]] = {}
    for key in found:
        part = parse(key) or Part(key, "unknown")
        roles = layers.setdefault(part.path, {})
        if part.role in roles:
            raise ValueError(f"{path.name}: {key} and {roles[part.role]} are the same weight of the same layer")
        roles[part.role] = key
    for layer, roles in layers.items():
        if len(half := {"down", "up"} & set(roles)) == 1:
            raise ValueError(
                f"{path.name}: {roles[half.pop()]} has no partner; the file is incomplete, download it again"
            )
        if "down" in roles:
            down, up, bias = (found.get(roles.get(role)) for role in ("down", "up", "bias"))
            if min(len(down), len(up)) < 2 or down[0] != up[1] or not down[0] or bias not in (None, up[:1]):
                raise ValueError(
                    f"{path.name}: the pair of {layer} does not fit together: down {down}, up {up}, {bias}"
                )
    return layers


def _fit(path: Path, layers: dict, found: dict, shapes: dict, facts: dict) -> LoraFile:
    """What of the file's layers fits the model, by name and shape."""
    names, seen = aliases(shapes), {}
    pairs, changed, unknown, misshapen = {}, {"add": {}, "set": {}}, [], []
    for written, roles in layers.items():
        layer = names.get(written) or names.get(written.replace(".", "_"))  # some trainers write both in one name
        if layer is None:
            unknown.append(written)
            continue
        if layer in seen:
            raise ValueError(f"{path.name} holds {layer} twice, as {written} and as {seen[layer]}")
        seen[layer] = written
        weight, bias = (layer, None) if layer in shapes else (f"{layer}.weight", f"{layer}.bias")
        if "down" in roles and fits(shapes.get(weight), found[roles["down"]], found[roles["up"]]):
            pairs[layer] = _pair(layer, roles, found, facts)
        elif "down" in roles:
            misshapen.append(f"{layer} {found[roles['up']][0]}x{found[roles['down']][1]}")
        for role in ("add", "add_bias", "set", "set_bias"):
            name = bias if role.endswith("bias") else weight
            if role in roles and found[roles[role]] == shapes.get(name):
                changed[role[:3]][name] = roles[role]
            elif role in roles:
                misshapen.append(f"{layer} {found[roles[role]]}")
    unused = [f"no such layer: {summary(unknown)}"] if unknown else []
    unused += [f"another shape: {summary(misshapen)}"] if misshapen else []
    return LoraFile(path, pairs, changed["add"], changed["set"], tuple(unused))


def fits(weight: tuple | None, down: tuple, up: tuple) -> bool:
    """Whether up @ down, each flattened to a matrix, has the size of the weight [o, ...]."""
    return (
        weight is not None
        and len(weight) > 1
        and up[0] == weight[0]
        and math.prod(up[2:]) == 1
        and math.prod(down[1:]) == math.prod(weight[1:])
    )


def _pair(layer: str, roles: dict, found: dict, facts: dict) -> Pair:
    alphas = {strip(k.lstrip("^")): v for k, v in facts.get("alpha_pattern", {}).items()}
    alpha = next((v for k, v in alphas.items() if f".{layer}".endswith(f".{k}")), facts.get("lora_alpha"))
    rank = found[roles["down"]][0]
    return Pair(
        roles["down"], roles["up"], roles.get("alpha"), roles.get("bias"), rank, bool(facts.get("use_rslora")), alpha
    )


def read_facts(path: Path) -> dict:
    """lora_alpha, alpha_pattern, use_rslora, use_dora as far as they are stated.

    In the file's own metadata (diffusers, LyCORIS), or in PEFT's adapter_config.json beside adapter_model.safetensors.
    """
    beside = path.with_name("adapter_config.json")
    if path.name == "adapter_model.safetensors" and beside.is_file():
        return _facts(beside, json_text.read(beside))
    metadata = headers.read_metadata(path)
    if raw := metadata.get("lora_adapter_metadata"):
        return _facts(path, json_text.parse(raw, f"{path}: lora_adapter_metadata"))
    stable = re.search(r'"rs_lora": "?true', str(metadata.get("ss_network_args")), re.IGNORECASE)
    return {"use_rslora": stable is not None}


def _facts(path: Path, said) -> dict:
    """Of PEFT's LoraConfig, its keys with or without `transformer.` before them."""
    try:
        facts = {name.removeprefix("transformer."): value for name, value in said.items()}
        facts["alpha_pattern"] = {k: _finite(v) for k, v in (facts.get("alpha_pattern") or {}).items()}
        alpha = facts.get("lora_alpha")
        return {**facts, "lora_alpha": None if alpha is None else _finite(alpha)}
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its LoRA metadata is no LoraConfig ({error}); download it again") from error


def _finite(value) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError(f"alpha {value}")
    return number


def companion_names(
    path: Path, found: dict[str, tuple], shapes: dict[str, tuple], heads: int, layers: int
) -> dict[str, str]:
    """Of the official companion file: parameter -> key. ValueError for keys or shapes that are not the model's.

    It holds the trained history embeddings in full, and where training had it the gain of the history's keys.
    """
    gains = {f"blocks.{i}.attn1.history_key_scale" for i in range(layers)}
    names, strange = {}, []
    for key, shape in found.items():
        name = strip(key).replace(".base_layer.", ".")
        if any(part in key for part in (*LEFTOVERS, ".lora_A.", ".lora_B.")):
            continue
        if shape == shapes.get(name) or (name in gains and shape in ((heads,), (1,))):
            names[name] = key
        else:
            strange.append(f"{key} {shape}")
    if strange:
        problem = f"does not fit this model: {', '.join(strange[:4])}"
    elif gains & set(names) and gains - set(names):
        problem = f"has history_key_scale for some blocks only, not {sorted(gains - set(names))[:4]}"
    elif not names:
        problem = "holds nothing that inference uses"
    else:
        return names
    raise ValueError(f"{path.name} {problem}. Wanted the {COMPANION} of a LoRA that was trained on this checkpoint")
