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
