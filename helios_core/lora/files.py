"""LoRA files: which tensors change which layer of the model, how strongly, and what does not fit. Headers only.

A layer's weight becomes W + strength * scale * up @ down, or what the other forms make of it (forms.py), with scale =
alpha / rank, or alpha / sqrt(rank) where the file says that it is rank-stabilised (arXiv:2312.03732), or 1 where no
alpha is stated. Files of Wan trainers also hold plain differences (`.diff`, `.diff_b`), and the official training files
whole norm weights. No framework here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import headers
from ..disk import json_text
from .forms import KINDS, ROLES, Size, kind_of, lacking, size_of
from .names import Part, aliases, flat, other_kind, parse, seems, strip, summary
from .strength import Strength

MODES = ("auto", "apply", "merge")
# In the official companion file: training only, or of a self-attention that no released checkpoint has.
LEFTOVERS = ("gan_heads.", "gan_final_head.", ".q_loras.", ".k_loras.", ".v_loras.")
COMPANION = "transformer_partial.pth"


class Adapter(NamedTuple):
    """The change of one layer. kind: of forms.KINDS; keys: of its tensors in the file, by role.

    alpha, bias, lengths (DoRA's): keys, where there are such. rows: the lengths are surely of rows. stated: the alpha
    that the metadata gives, if any.
    """

    kind: str
    keys: dict[str, str]
    alpha: str | None
    bias: str | None
    lengths: str | None
    rows: bool
    rank: int
    stable: bool
    stated: float | None

    def scale(self, alpha: float | None) -> float:
        """alpha: the value of the tensor of that name, if the file has one; it goes before the metadata's."""
        alpha = self.stated if alpha is None else alpha
        if alpha is None or not self.rank:
            return 1.0
        return alpha / (math.sqrt(self.rank) if self.stable else self.rank)


@dataclass(frozen=True)
class LoraFile:
    """What one file changes. adapters: layer -> Adapter; added, replaced: parameter -> key in the file."""

    path: Path
    adapters: dict[str, Adapter]
    added: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Layers that it changes."""
        return len({*self.adapters, *(name.rpartition(".")[0] for name in (*self.added, *self.replaced))})

    @property
    def form(self) -> str:
        """LoRA, LoHa, LoKr, or several; with DoRA where layers have lengths of their own."""
        kinds = sorted({adapter.kind for adapter in self.adapters.values()}) or ["LoRA"]
        dora = any(adapter.lengths for adapter in self.adapters.values())
        return " and ".join([*kinds, "DoRA"] if dora else kinds)

    def report(self, strength: Strength) -> str:
        """One line: how much of the file is used, and what is not and why."""
        form = "" if self.form == "LoRA" else f" by {self.form}"
        line = f"{self.path.name} at {strength}: {self.count} layer{'s' * (self.count != 1)} changed{form}"
        return f"{line}. Not used: {'; '.join(self.unused)}" if self.unused else line


def read_lora(path, shapes: dict[str, tuple[int, ...]]) -> LoraFile:
    """A LoRA file for a model with parameters of these shapes. ValueError for a broken or foreign file."""
    path = Path(path)
    if path.suffix.lower() not in (".safetensors", ".sft"):
        raise ValueError(f"{path}: a LoRA is read from a .safetensors file; torch pickles are not, but for {COMPANION}")
    header, facts = headers.read_header(path), read_facts(path)
    found = {key: info.shape for key, info in header.items()}
    kind = other_kind(found)
    if str(facts.get("peft_type") or "LORA") != "LORA":
        kind = f"{facts['peft_type']} of PEFT"
    if kind:
        raise ValueError(
            f"{path.name} is {kind}; read are LoRA, LoCon, LoHa, LoKr and DoRA. Merge it with its own tool first"
        )
    layers = _by_layer(path, found)
    if facts.get("use_dora") is True and not any({"dora", "dora_rows"} & set(roles) for roles in layers.values()):
        raise ValueError(f"{path.name} is a DoRA by its metadata, without its magnitudes; download it again")
    file = _fit(path, layers, found, shapes, facts)
    if not file.adapters and not file.added:
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
        _check_layer(path, layer, roles, found)
    return layers


def _check_layer(path: Path, layer: str, roles: dict, found: dict) -> None:
    """ValueError for tensors of one layer that do not belong together."""
    shapes = {role: found[key] for role, key in roles.items()}
    try:
        kind = kind_of(roles)
        alone = [key for role, key in roles.items() if role in ("dora", "dora_rows") and kind is None]
        alone += [key for role, key in roles.items() if kind and role in ROLES and lacking(kind, roles)]
        if alone:
            raise ValueError(f"{alone[0]} has no partner; the file is incomplete, download it again")
        size = kind and size_of(kind, shapes)
        if size and shapes.get("bias", (size.rows,)) != (size.rows,):
            raise ValueError(f"a bias for {size.rows} rows")
    except ValueError as error:
        text = ", ".join(f"{role} {shape}" for role, shape in shapes.items())
        raise ValueError(f"{path.name}: what it holds of {layer} does not fit together: {error} ({text})") from None


def _fit(path: Path, layers: dict, found: dict, shapes: dict, facts: dict) -> LoraFile:
    """What of the file's layers fits the model, by name and shape."""
    names, seen = aliases(shapes), {}
    adapters, changed, unknown, misshapen = {}, {"add": {}, "set": {}}, [], []
    for written, roles in layers.items():
        layer = names.get(flat(written))
        if layer is None:
            unknown.append(written)
            continue
        if layer in seen:
            raise ValueError(f"{path.name} holds {layer} twice, as {written} and as {seen[layer]}")
        seen[layer] = written
        weight, bias = (layer, None) if layer in shapes else (f"{layer}.weight", f"{layer}.bias")
        if kind := kind_of(roles):
            size = size_of(kind, {role: found[key] for role, key in roles.items()})
            if fits(shapes.get(weight), size, _lengths(roles, found)):
                adapters[layer] = _adapter(layer, kind, roles, size, facts)
            else:
                misshapen.append(f"{layer} {size.rows}x{size.columns}")
        for role in ("add", "add_bias", "set", "set_bias"):
            name = bias if role.endswith("bias") else weight
            if role in roles and found[roles[role]] == shapes.get(name):
                changed[role[:3]][name] = roles[role]
            elif role in roles:
                misshapen.append(f"{layer} {found[roles[role]]}")
    unused = [f"no such layer: {summary(unknown)}"] if unknown else []
    unused += [f"another shape: {summary(misshapen)}"] if misshapen else []
    return LoraFile(path, adapters, changed["add"], changed["set"], tuple(unused))


def fits(weight: tuple | None, size: Size, lengths: tuple | None) -> bool:
    """Whether a matrix of that size, and lengths of its rows or columns, are those of a weight [o, ...]."""
    if weight is None or len(weight) < 2 or size[:2] != (weight[0], math.prod(weight[1:])):
        return False
    return lengths is None or lengths == (weight[0], 1) or (lengths == (1, weight[1]))


def _lengths(roles: dict, found: dict) -> tuple | None:
    """[rows, 1] or [1, columns] of a DoRA's lengths, whatever axes of 1 they were written with; None without."""
    role = next((role for role in ("dora", "dora_rows") if role in roles), None)
    if role is None:
        return None
    shape = found[roles[role]]
    one_row = role == "dora" and len(shape) > 1 and shape[0] == 1
    return (1, math.prod(shape)) if one_row else (math.prod(shape), 1)


def _adapter(layer: str, kind: str, roles: dict, size: Size, facts: dict) -> Adapter:
    alphas = {strip(k.lstrip("^")): v for k, v in facts.get("alpha_pattern", {}).items()}
    alpha = next((v for k, v in alphas.items() if f".{layer}".endswith(f".{k}")), facts.get("lora_alpha"))
    used = {role for term in KINDS[kind] for role in term}
    return Adapter(
        kind,
        {role: key for role, key in roles.items() if role in used},
        alpha=roles.get("alpha"),
        bias=roles.get("bias"),
        lengths=roles.get("dora", roles.get("dora_rows")),
        rows="dora_rows" in roles,
        rank=size.rank,
        stable=bool(facts.get("use_rslora")),
        stated=alpha,
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
