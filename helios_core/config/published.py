"""Reading the JSON files of a published folder: what may be in them, and errors that name what may not."""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

from ..disk import as_object, read_object
from .limits import WIDTH

IGNORED = {
    # From is_use_gan on, which the official merge tool writes: heads and low-rank layers that only training has.
    "transformer": {"window_size", "add_img_emb", "is_use_gan", "is_use_gan_hooks", "is_use_gan_final"}
    | {"gan_cond_map_dim", "gan_hooks", "restrict_lora_rank", "is_train_restrict_lora"},
    "vae": {"clip_output"},
}
# Keys that may be there with this value only: another one is another computation.
FIXED = {
    "transformer": {
        "qk_norm": "rms_norm_across_heads",
        "added_kv_proj_dim": None,
        "image_dim": None,
        "restrict_self_attn": False,
        "restrict_lora": False,
    },
    "scheduler": {
        "version": "v1",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "thresholding": False,
        "solver_order": 2,
        "solver_type": "bh2",
        "predict_x0": True,
        "lower_order_final": True,
        "disable_corrector": [],
        "solver_p": None,
    },
}
WHY = {
    "version": "v2 has other sigmas (global ones, cut per stage), which no official training or sampling uses",
    "image_dim": "this network has no image embedding; a Wan image-to-video model is another one",
    "added_kv_proj_dim": "this network has no keys and values of an image; a Wan image-to-video model is another one",
    "restrict_self_attn": "history that does not attend to the new frames is another network",
    "restrict_lora": "its self-attention has layers of its own for the history; if it was trained with "
    "restrict_self_attn off they are not used, and false is right",
}


class FromDict:
    """Builds a config from JSON: drops private and harmless keys, refuses unknown ones by name."""

    kind = ""

    @classmethod
    def from_dict(cls, raw: dict):
        """Of a published config.json.

        ValueError for keys that are unknown, for values of another type, or that no released checkpoint has.
        """
        as_object(raw, f"{cls.kind} config")
        known = {f.name for f in fields(cls)}
        fixed = FIXED.get(cls.kind, {})
        ignored = IGNORED.get(cls.kind, set()) | set(fixed)
        unknown = sorted(k for k in raw if k not in known and k not in ignored and not k.startswith("_"))
        if unknown:
            raise ValueError(
                f"{cls.kind} config: unknown keys {unknown}. This pack reads {sorted(known)}; "
                "the checkpoint is of another model or of a newer version."
            )
        other = [f"{k} {raw[k]!r} instead of {v!r}" for k, v in fixed.items() if raw.get(k, v) != v]
        if other:
            why = "".join(f". {k}: {WHY[k]}" for k, v in fixed.items() if k in WHY and raw.get(k, v) != v)
            raise ValueError(f"{cls.kind} config: {', '.join(other)}; no released Helios checkpoint has that{why}")
        values = {k: _freeze(v) for k, v in raw.items() if k in known}
        for name, value in values.items():
            check_value(f"{cls.kind} config: {name}", value, _hints(cls)[name])
        return cls(**values)


_hints = cache(get_type_hints)
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


def check_value(name: str, value, hint) -> None:
    """ValueError unless a value from JSON is of a field's type, and its numbers finite and not absurdly large."""
    if not _fits(value, hint):
        raise ValueError(
            f"{name}: wanted {_words(hint)}, got {str(value)[:80]}; take the file from the checkpoint again"
        )


def _fits(value, hint) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        each = inner[:1] * len(value) if inner[-1] is Ellipsis and isinstance(value, tuple) else inner
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_fits, value, each))
    if hint is float:
        return type(value) in (int, float) and -1e9 <= value <= 1e9 and math.isfinite(value)
    return type(value) is hint and (hint is not int or 0 <= value <= WIDTH)


def _words(hint) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_words, get_args(hint)))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        many = "" if inner[-1] is Ellipsis else f"{len(inner)} "
        return f"a list of {many}values, each {_words(inner[0])}"
    return NAMES.get(hint, "another value") + (f" up to {WIDTH}" if hint is int else "")


def _freeze(value):
    return tuple(_freeze(v) for v in value) if isinstance(value, list) else value


def read_json(path: Path) -> dict:
    """A JSON object from a file; a missing or broken file is a ValueError that names it."""
    if not path.is_file():
        raise ValueError(f"{path} is missing. A Helios folder holds model_index.json, transformer/, vae/, scheduler/.")
    return read_object(path)
