"""What a part's config must be, from its tensors alone: for files that carry no config.

A shape does not tell everything. Heads of 128 channels, Wan's latent statistics and UMT5's distances are taken for
granted; whoever has another model needs a config beside the weights, or in the file's metadata.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..config import check_value, check_whole, limits

HEAD = 128  # channels per head in every Wan and every released Helios model
LATENT = 16


def infer(part: str, shapes: Mapping[str, tuple[int, ...]], path) -> dict:
    """config.json of a part from published name -> shape. ValueError where the shapes alone do not say enough."""
    try:
        return INFER[part](shapes)
    except (KeyError, IndexError, StopIteration) as error:
        raise ValueError(
            f"{path}: the sizes of the {part} cannot be told from its tensors ({error} is missing); the file is "
            "incomplete or of another model"
        ) from error
    except ZeroDivisionError as error:
        raise ValueError(f"{path}: a tensor of the {part} has a size of 0; download the file again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def count(shapes: Mapping, prefix: str) -> int:
    """How many numbered modules there are below a prefix."""
    return len({name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)})


def _at_least(axes: int, shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    if len(shape) < axes:
        raise ValueError(f"{name} has the shape {shape}; the file is broken or of another model")
    return shape


def transformer(shapes: Mapping) -> dict:
    """config.json of a transformer with tensors of these shapes, by published names.

    ValueError for what it cannot tell.
    """
    dim, channels, *patch = _at_least(2, shapes["patch_embedding.weight"], "patch_embedding.weight")
    gains = shapes.get("blocks.0.attn1.history_key_scale")
    if dim % HEAD:
        raise ValueError(f"a width of {dim} is not made of heads of {HEAD} channels; such a model needs its config")
    return {
        "patch_size": patch,
        "num_attention_heads": dim // HEAD,
        "attention_head_dim": HEAD,
        "in_channels": channels,
        "out_channels": shapes["proj_out.weight"][0] // math.prod(patch),
        "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
        "freq_dim": shapes["condition_embedder.time_embedder.linear_1.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
        "num_layers": count(shapes, "blocks."),
        "cross_attn_norm": "blocks.0.norm2.weight" in shapes,
        "is_amplify_history": gains is not None,
        "history_scale_mode": "scalar" if gains == (1,) else "per_head",
    }


def vae(shapes: Mapping) -> dict:
    """config.json of a VAE with tensors of these shapes. ValueError for one that is not of the Wan 2.1 kind."""
    base, latent = shapes["encoder.conv_in.weight"][0], shapes["post_quant_conv.weight"][0]
    if latent != LATENT:
        raise ValueError(f"a VAE of {latent} latent channels; Helios takes the Wan 2.1 VAE, which has {LATENT}")
    levels = count(shapes, "decoder.up_blocks.")
    blocks = count(shapes, "decoder.up_blocks.0.resnets.") - 1
    if any(name.startswith("encoder.down_blocks.") and ".to_qkv." in name for name in shapes):
        raise ValueError("attention outside the middle blocks; no released Wan VAE has that, so it needs its config")
    ends = [f"encoder.down_blocks.{level * (blocks + 1) + blocks}" for level in range(levels - 1)]
    top = [shapes[f"decoder.up_blocks.{levels - 1 - level}.resnets.0.conv1.weight"][0] for level in range(levels)]
    width = shapes["decoder.norm_out.gamma"][0]
    return {
        "base_dim": base,
        "decoder_base_dim": None if width == base else width,
        "z_dim": latent,
        "dim_mult": [channels // width for channels in top],
        "num_res_blocks": blocks,
        "temperal_downsample": [f"{end}.time_conv.weight" in shapes for end in ends],
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
    }


def text_encoder(shapes: Mapping) -> dict:
    """config.json of a UMT5 encoder with tensors of these shapes."""
    layer = "encoder.block.0.layer."
    bias = f"{layer}0.SelfAttention.relative_attention_bias.weight"
    embedding = next(name for name in ("shared.weight", "encoder.embed_tokens.weight") if name in shapes)
    (words, width, *_), (buckets, heads, *_) = (_at_least(2, shapes[name], name) for name in (embedding, bias))
    return {
        "model_type": "umt5",
        "vocab_size": words,
        "d_model": width,
        "d_kv": shapes[f"{layer}0.SelfAttention.q.weight"][0] // heads,
        "d_ff": shapes[f"{layer}1.DenseReluDense.wi_0.weight"][0],
        "num_layers": count(shapes, "encoder.block."),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "tie_word_embeddings": False,
    }


INFER = {"transformer": transformer, "vae": vae, "text_encoder": text_encoder}


def check_umt5(config: Mapping) -> None:
    """ValueError unless a text encoder's config has its sizes, as numbers that can be."""
    for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers"):
        if name not in config:
            raise ValueError(f"text encoder config: {name} is missing; take the file from the checkpoint again")
    known = {"num_heads": limits.LAYERS, "num_layers": limits.LAYERS, "d_model": limits.WIDTH, "d_kv": limits.WIDTH}
    known |= {name: limits.WIDTH for name in ("vocab_size", "d_ff", "relative_attention_num_buckets")}
    for name, most in {**known, "relative_attention_max_distance": limits.WIDTH}.items():
        if name in config:
            check_value(f"text encoder config: {name}", config[name], int)
            check_whole(f"text encoder config: {name}", config[name], most)
    if "layer_norm_epsilon" in config:
        check_value("text encoder config: layer_norm_epsilon", config["layer_norm_epsilon"], float)


def umt5(config: Mapping) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a UMT5 encoder, by its Hugging Face name but for the embedding, from its config."""
    check_umt5(config)
    width, inner, hidden = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    found = {"encoder.final_layer_norm.weight": (width,)}
    for block in (f"encoder.block.{i}.layer." for i in range(config["num_layers"])):
        attention, feed = f"{block}0.SelfAttention.", f"{block}1.DenseReluDense."
        found |= {f"{attention}{name}.weight": (inner, width) for name in "qkv"}
        found[f"{attention}o.weight"] = (width, inner)
        bias = (config.get("relative_attention_num_buckets", 32), config["num_heads"])
        found[f"{attention}relative_attention_bias.weight"] = bias
        found |= {f"{feed}wi_0.weight": (hidden, width), f"{feed}wi_1.weight": (hidden, width)}
        found[f"{feed}wo.weight"] = (width, hidden)
        found |= {f"{block}{i}.layer_norm.weight": (width,) for i in (0, 1)}
    return found
