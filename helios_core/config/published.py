"""Reading the JSON files of a published folder: what may be in them, and errors that name what may not."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

IGNORED = {
    "transformer": {"window_size", "add_img_emb"},
    "vae": {"clip_output"},
    "scheduler": {"version"},
}
# Keys that may be there with this value only: another one is another computation.
FIXED = {
    "transformer": {"qk_norm": "rms_norm_across_heads", "added_kv_proj_dim": None, "restrict_self_attn": False},
    "scheduler": {
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


class FromDict:
    """Builds a config from JSON: drops private and harmless keys, refuses unknown ones by name."""

    kind = ""

    @classmethod
    def from_dict(cls, raw: dict):
        """Of a published config.json.

        ValueError for keys that are unknown, or of values that no released checkpoint has.
        """
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
            raise ValueError(f"{cls.kind} config: {', '.join(other)}; no released Helios checkpoint has that")
        return cls(**{k: _freeze(v) for k, v in raw.items() if k in known})


def _freeze(value):
    return tuple(_freeze(v) for v in value) if isinstance(value, list) else value


def read_json(path: Path) -> dict:
    """A JSON object from a file; a missing or broken file is a ValueError that names it."""
    if not path.is_file():
        raise ValueError(f"{path} is missing. A Helios folder holds model_index.json, transformer/, vae/, scheduler/.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} should hold a JSON object, it holds a {type(value).__name__}")
    return value
