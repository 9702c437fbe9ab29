"""What the shapes of a file tell of a network's sizes, and what they do not."""

import pytest
import torch
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.checkpoint import inferred
from helios_video.helios_core.checkpoint.sources import open_part
from helios_video.helios_core.config.model import TransformerConfig
from safetensors.torch import save_file
from support.parts import TRANSFORMER


def test_an_amplified_models_gains_are_seen():
    for gains, mode in (((40,), "per_head"), ((1,), "scalar")):
        with torch.device("meta"):
            config = TransformerConfig(num_layers=1, is_amplify_history=True, history_scale_mode=mode)
            state = HeliosTransformer(config).state_dict()
        assert state["blocks.0.attn1.history_key_scale"].shape == gains
        assert (
            TransformerConfig.from_dict(inferred.transformer({k: tuple(v.shape) for k, v in state.items()})) == config
        )


def test_sizes_that_shapes_do_not_tell_are_refused(tmp_path):
    with torch.device("meta"):
        state = HeliosTransformer(
            TransformerConfig(**TRANSFORMER | dict(attention_head_dim=12, rope_dim=(4, 4, 4)))
        ).state_dict()
    save_file({name: torch.zeros(value.shape) for name, value in state.items()}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="x.safetensors: a width of 12 is not made of heads of 128"):
        open_part(tmp_path / "x.safetensors", "transformer")


BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
VAE = {"encoder.conv_in.weight": (4, 3), "post_quant_conv.weight": (16,), "decoder.norm_out.gamma": (0,)}
VAE |= {"decoder.up_blocks.0.resnets.0.conv1.weight": (4,), "decoder.conv_out.weight": (3,)}


@pytest.mark.parametrize(
    "part, shapes, words",
    [
        ("transformer", {"patch_embedding.weight": (128,)}, r"patch_embedding.weight has the shape \(128,\)"),
        ("transformer", {"patch_embedding.weight": (128, 16, 1, 0, 2), "proj_out.weight": (64,)}, "a size of 0"),
        ("text_encoder", {"shared.weight": (4,), BIAS: (8, 2)}, r"shared.weight has the shape \(4,\)"),
        ("text_encoder", {"shared.weight": (4, 4), BIAS: (8, 0)}, "a size of 0"),
        ("vae", VAE, "a size of 0"),
    ],
)
def test_shapes_that_cannot_be_are_refused_by_name(part, shapes, words):
    for name in (f"condition_embedder.{x}_embedder.linear_1.weight" for x in ("text", "time")):
        shapes = {name: (1, 1), **shapes}
    attention = {"encoder.block.0.layer.0.SelfAttention.q.weight": (4, 4)}
    with pytest.raises(ValueError, match=f"^x: .*{words}"):
        inferred.infer(part, attention | shapes, "x")
