"""What a checkpoint says about itself: one frozen dataclass per part, read from the published folder's JSON files.

Sources: transformer/config.json, vae/config.json, scheduler/scheduler_config.json, model_index.json and
generation_config.json of a published Helios folder. Nothing here knows a size that is not in one of these files.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .limits import LAYERS, SIDE, WIDTH, check_whole
from .published import FromDict, check_value, read_json
from .variants import SamplingDefaults, ScheduleConfig, check_pipeline, find_defaults, find_variant

LOG = logging.getLogger(__name__)

INDEX, SCHEDULER, GENERATION = "model_index.json", "scheduler/scheduler_config.json", "generation_config.json"


@dataclass(frozen=True)
class TransformerConfig(FromDict):
    """Sizes of the Helios transformer; the defaults are the published 14B model.

    ValueError for sizes that do not fit together.
    """

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
        for name in ("attention_head_dim", "in_channels", "out_channels", "text_dim", "freq_dim", "ffn_dim"):
            check_whole(f"transformer config: {name}", getattr(self, name), WIDTH)
        for size in self.patch_size:
            check_whole("transformer config: patch_size", size, 64)
        check_whole("transformer config: num_layers", self.num_layers, LAYERS)
        check_whole("transformer config: num_attention_heads", self.num_attention_heads, LAYERS)
        if not (self.eps > 0 and self.rope_theta > 0):
            raise ValueError(f"transformer config: eps {self.eps:g}, rope_theta {self.rope_theta:g}: must be above 0")
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
class VAEConfig(FromDict):
    """Sizes of the Wan 2.1 VAE; the defaults are the published one. Means and stds are of the raw latent channels.

    ValueError for sizes that do not fit together.
    """

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
        sizes = ("base_dim", "z_dim", "in_channels", "out_channels", "scale_factor_temporal", "scale_factor_spatial")
        for name, size in ((name, getattr(self, name)) for name in sizes):
            check_whole(f"vae config: {name}", size, 10_000)
        check_whole("vae config: decoder_base_dim", self.decoder_base_dim or self.base_dim, 10_000)
        check_whole("vae config: num_res_blocks", self.num_res_blocks, 100)
        check_whole("vae config: the length of dim_mult", len(self.dim_mult), 8)
        for size in self.dim_mult:
            check_whole("vae config: dim_mult", size, 64)
        for value in self.latents_mean:
            check_value("vae config: latents_mean", value, float)
        for value in self.latents_std:
            check_value("vae config: latents_std", value, float)
            if not value > 0:
                raise ValueError(f"vae config: latents_std holds {value}; spreads are above 0")
        if len(self.latents_mean) != self.z_dim or len(self.latents_std) != self.z_dim:
            raise ValueError(f"vae config: latents_mean and latents_std must hold z_dim = {self.z_dim} numbers")
        if len(self.temperal_downsample) != len(self.dim_mult) - 1:
            raise ValueError("vae config: temperal_downsample must be one shorter than dim_mult")


@dataclass(frozen=True)
class ModelConfig:
    """A whole checkpoint: its parts, its variant and its defaults. ValueError for parts of different checkpoints."""

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


def read_folder(folder: Path) -> ModelConfig:
    """The configuration of a checkpoint in the published folder layout."""
    found = {INDEX: read_json(folder / INDEX)}
    check_pipeline(found[INDEX])
    found[SCHEDULER] = read_json(folder / SCHEDULER)
    found |= {name: read_json(folder / name) for name in (GENERATION,) if (folder / name).is_file()}
    text = folder / "text_encoder" / "config.json"
    parts = {part: read_json(folder / part / "config.json") for part in ("transformer", "vae")}
    return build(found, {**parts, "text_encoder": read_json(text) if text.is_file() else {}})


def build(documents: dict[str, dict], parts: dict[str, dict]) -> ModelConfig:
    """From JSON objects: those of the whole by their path in the published folder, those of the parts by name."""
    index, schedule = documents[INDEX], ScheduleConfig.from_dict(documents[SCHEDULER])
    return ModelConfig(
        transformer=TransformerConfig.from_dict(parts["transformer"]),
        vae=VAEConfig.from_dict(parts["vae"]),
        schedule=schedule,
        defaults=find_defaults(index, schedule, documents.get(GENERATION, {})),
        variant=find_variant(index, schedule),
        text=parts["text_encoder"],
    )


def check_size(width: int, height: int, multiple: int) -> None:
    """ValueError for a size in pixels that the pyramid cannot halve; it names the nearest sizes that work."""
    if max(width, height) > SIDE:
        raise ValueError(f"size {str(width)[:30]}x{str(height)[:30]}: H.264 has at most {SIDE} pixels to a side")
    if width > 0 and height > 0 and width % multiple == 0 and height % multiple == 0:
        return
    near = [
        sorted({max(multiple, v // multiple * multiple), -(-max(v, 1) // multiple) * multiple}) for v in (width, height)
    ]
    raise ValueError(
        f"size {width}x{height}: width and height must be multiples of {multiple} pixels. "
        f"Nearest that work: width {' or '.join(map(str, near[0]))}, height {' or '.join(map(str, near[1]))}."
    )


@cache
def warn_size(width: int, height: int, trained_width: int, trained_height: int) -> None:
    """Says once per size that the checkpoint was not trained at it. Pixels."""
    if (width, height) != (trained_width, trained_height):
        LOG.warning(
            "size %dx%d: this checkpoint was trained at %dx%d only; at other sizes the picture may jump from chunk to "
            "chunk, even at that size turned on its side",
            *(width, height, trained_width, trained_height),
        )
