"""What a checkpoint says about itself: one frozen dataclass per part, read from the published folder's JSON files.

Sources: transformer/config.json, vae/config.json, scheduler/scheduler_config.json, model_index.json and
generation_config.json of a published Helios folder. Nothing here knows a size that is not in one of these files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

IGNORED = {
    "transformer": {"window_size", "add_img_emb"},
    "vae": {"clip_output"},
    "scheduler": {
        *("solver_order", "predict_x0", "solver_type", "lower_order_final", "disable_corrector", "solver_p", "version"),
    },
}
# Keys that may be there with this value only: another one is another computation.
FIXED = {
    "transformer": {"qk_norm": "rms_norm_across_heads", "added_kv_proj_dim": None, "restrict_self_attn": False},
    "scheduler": {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "thresholding": False},
}


class _FromDict:
    """Builds a config from JSON: drops private and harmless keys, refuses unknown ones by name."""

    kind = ""

    @classmethod
    def from_dict(cls, raw: dict):
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


@dataclass(frozen=True)
class TransformerConfig(_FromDict):
    """Sizes of the Helios transformer; the defaults are the published 14B model."""

    kind = "transformer"
    patch_size: tuple[int, int, int] = (1, 2, 2)
    num_attention_heads: int = 40
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 13824
    num_layers: int = 40
    cross_attn_norm: bool = True
    eps: float = 1e-6
    rope_dim: tuple[int, int, int] = (44, 42, 42)
    rope_theta: float = 10000.0
    guidance_cross_attn: bool = True
    zero_history_timestep: bool = True
    has_multi_term_memory_patch: bool = True
    is_amplify_history: bool = False
    history_scale_mode: str = "per_head"

    def __post_init__(self):
        if sum(self.rope_dim) != self.attention_head_dim:
            raise ValueError(f"transformer config: rope_dim {self.rope_dim} must add up to {self.attention_head_dim}")
        if any(d % 2 for d in self.rope_dim):
            raise ValueError(f"transformer config: rope_dim {self.rope_dim} must be even numbers")
        unsupported = [
            name
            for name in ("guidance_cross_attn", "zero_history_timestep", "has_multi_term_memory_patch")
            if not getattr(self, name)
        ]
        if unsupported:
            raise ValueError(f"transformer config: {unsupported} is off; released Helios checkpoints have it on")
        if self.history_scale_mode not in ("per_head", "scalar"):
            raise ValueError(f"transformer config: history_scale_mode {self.history_scale_mode!r} is unknown")

    @property
    def dim(self) -> int:
        """Width of the hidden states."""
        return self.num_attention_heads * self.attention_head_dim


WAN_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508)
WAN_MEAN += (0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
WAN_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743)
WAN_STD += (3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)


@dataclass(frozen=True)
class VAEConfig(_FromDict):
    """Sizes of the Wan 2.1 VAE; the defaults are the published one. Means and stds are of the raw latent channels."""

    kind = "vae"
    base_dim: int = 96
    decoder_base_dim: int | None = None
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attn_scales: tuple[float, ...] = ()
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    dropout: float = 0.0
    latents_mean: tuple[float, ...] = WAN_MEAN
    latents_std: tuple[float, ...] = WAN_STD
    is_residual: bool = False
    in_channels: int = 3
    out_channels: int = 3
    patch_size: int | None = None
    scale_factor_temporal: int = 4
    scale_factor_spatial: int = 8

    def __post_init__(self):
        if len(self.latents_mean) != self.z_dim or len(self.latents_std) != self.z_dim:
            raise ValueError(f"vae config: latents_mean and latents_std must hold z_dim = {self.z_dim} numbers")
        if len(self.temperal_downsample) != len(self.dim_mult) - 1:
            raise ValueError("vae config: temperal_downsample must be one shorter than dim_mult")


@dataclass(frozen=True)
class ScheduleConfig(_FromDict):
    """The noise schedule and solver, as scheduler_config.json states them."""

    kind = "scheduler"
    num_train_timesteps: int = 1000
    shift: float = 1.0
    stages: int = 3
    stage_range: tuple[float, ...] = (0, 1 / 3, 2 / 3, 1)
    gamma: float = 1 / 3
    scheduler_type: str = "unipc"
    use_dynamic_shifting: bool = False
    time_shift_type: str = "exponential"
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15

    def __post_init__(self):
        if len(self.stage_range) != self.stages + 1:
            raise ValueError(f"scheduler config: {self.stages} stages need {self.stages + 1} numbers in stage_range")
        if self.time_shift_type not in ("linear", "exponential"):
            raise ValueError(f"scheduler config: time_shift_type {self.time_shift_type!r} is not linear or exponential")
        if self.use_dynamic_shifting and self.shift != 1.0:
            raise ValueError("scheduler config: dynamic shifting needs shift 1.0")

    @property
    def solver(self) -> str:
        return self.scheduler_type

    @classmethod
    def from_dict(cls, raw: dict):
        name = raw.get("_class_name", "HeliosScheduler")
        if name not in ("HeliosScheduler", "HeliosDMDScheduler"):
            raise ValueError(f"scheduler config: class {name!r} is not HeliosScheduler or HeliosDMDScheduler")
        dmd = {"scheduler_type": "dmd"} if name == "HeliosDMDScheduler" else {}
        shift = {"time_shift_type": raw.get("time_shift_type", "linear")} if dmd else {}
        return super().from_dict({**raw, **dmd, **shift})


@dataclass(frozen=True)
class SamplingDefaults(_FromDict):
    """What the checkpoint was made to be sampled with. Sizes in pixels."""

    kind = "generation"
    steps: tuple[int, ...] = (2, 2, 2)
    solver: str = "dmd"
    cfg: float = 1.0
    width: int = 640
    height: int = 384
    boost_first_chunk: bool = True
    chunk_latent_frames: int = 9
    max_text_length: int = 512


# Steps and guidance that the official command line uses for each published variant.
PRESETS = {
    "base": SamplingDefaults(steps=(50,), solver="unipc", cfg=5.0, boost_first_chunk=False),
    "mid": SamplingDefaults(steps=(20, 20, 20), solver="unipc", cfg=5.0, boost_first_chunk=False),
    "distilled": SamplingDefaults(),
}


@dataclass(frozen=True)
class ModelConfig:
    """A whole checkpoint: its parts, its variant and its defaults."""

    transformer: TransformerConfig = TransformerConfig()
    vae: VAEConfig = VAEConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    defaults: SamplingDefaults = SamplingDefaults()
    variant: str = "distilled"
    text: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.transformer.in_channels != self.vae.z_dim:
            raise ValueError(
                f"the transformer takes {self.transformer.in_channels} latent channels, the VAE has {self.vae.z_dim}; "
                "they are of different checkpoints"
            )
        if self.text and self.text.get("d_model", self.transformer.text_dim) != self.transformer.text_dim:
            raise ValueError(
                f"the transformer takes text of width {self.transformer.text_dim}, "
                f"the text encoder gives {self.text['d_model']}; they are of different checkpoints"
            )
        if len(self.defaults.steps) != self.schedule.stages:
            raise ValueError(f"generation config: steps {self.defaults.steps} for {self.schedule.stages} stages")

    @property
    def spatial_multiple(self) -> int:
        """Width and height in pixels must be multiples of this: VAE stride x patch x halvings of the pyramid."""
        return self.vae.scale_factor_spatial * self.transformer.patch_size[1] * 2 ** (self.schedule.stages - 1)

    @property
    def frames_per_chunk(self) -> int:
        """Pixel frames that one chunk decodes to."""
        return (self.defaults.chunk_latent_frames - 1) * self.vae.scale_factor_temporal + 1


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


def read_folder(folder: Path) -> ModelConfig:
    """The configuration of a checkpoint in the published folder layout."""
    index = read_json(folder / "model_index.json")
    name = index.get("_class_name", "")
    if not str(name).startswith("Helios"):
        raise ValueError(f"{folder} holds a {name or 'nameless'} checkpoint; a HeliosPipeline one is wanted")
    schedule = ScheduleConfig.from_dict(read_json(folder / "scheduler" / "scheduler_config.json"))
    variant = find_variant(index, schedule)
    text = folder / "text_encoder" / "config.json"
    return ModelConfig(
        transformer=TransformerConfig.from_dict(read_json(folder / "transformer" / "config.json")),
        vae=VAEConfig.from_dict(read_json(folder / "vae" / "config.json")),
        schedule=schedule,
        defaults=read_defaults(folder / "generation_config.json", variant, schedule),
        variant=variant,
        text=read_json(text) if text.is_file() else {},
    )


def read_defaults(file: Path, variant: str, schedule: ScheduleConfig) -> SamplingDefaults:
    """The variant's preset with the scheduler's own solver, then what the file, if there is one, says otherwise."""
    preset = PRESETS[variant] if variant == "distilled" else replace(PRESETS[variant], solver=schedule.solver)
    raw = read_json(file) if file.is_file() else {}
    given = SamplingDefaults.from_dict(raw)
    return replace(preset, **{f.name: getattr(given, f.name) for f in fields(given) if f.name in raw})


def find_variant(index: dict, schedule: ScheduleConfig) -> str:
    """base, mid or distilled, from the pipeline class, its flags and the schedule."""
    if schedule.stages == 1:
        return "base"
    return "distilled" if index.get("is_distilled") or schedule.solver == "dmd" else "mid"


def parse_steps(text: str, stages: int) -> tuple[int, ...]:
    """Steps per stage from text: "2,2,2", "2 2 2", or one number for a single stage."""
    parts = [p for p in re.split(r"[,\s]+", text.strip()) if p]
    if not parts or not all(re.fullmatch(r"\d+", p) and int(p) > 0 for p in parts):
        raise ValueError(f"steps {text!r}: wanted {stages} positive whole numbers such as {','.join(['2'] * stages)!r}")
    if len(parts) != stages:
        raise ValueError(f"steps {text!r} has {len(parts)} numbers; this checkpoint has {stages} stages")
    return tuple(int(p) for p in parts)


def check_size(width: int, height: int, multiple: int) -> None:
    """Refuses a size that the pyramid cannot halve, naming the nearest sizes that work. Pixels."""
    if width > 0 and height > 0 and width % multiple == 0 and height % multiple == 0:
        return
    near = [
        sorted({max(multiple, v // multiple * multiple), -(-max(v, 1) // multiple) * multiple}) for v in (width, height)
    ]
    raise ValueError(
        f"size {width}x{height}: width and height must be multiples of {multiple} pixels. "
        f"Nearest that work: width {' or '.join(map(str, near[0]))}, height {' or '.join(map(str, near[1]))}."
    )
