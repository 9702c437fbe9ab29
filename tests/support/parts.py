"""The parts of a checkpoint in small, as files hold them: names, scaled fp8, a sentencepiece model."""

import struct

import torch
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.checkpoint import inferred
from helios_video.helios_core.checkpoint import names as keys
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig, VAEConfig

# Heads of 128 channels, as the sizes of a file without a config take them to be.
TRANSFORMER = dict(num_attention_heads=1, ffn_dim=24, num_layers=2, text_dim=16, freq_dim=8)
VAE = dict(base_dim=4, dim_mult=(1, 2, 2, 2), num_res_blocks=1)
TEXT = dict(vocab_size=60, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=2, relative_attention_num_buckets=8)
CONFIG = ModelConfig(transformer=TransformerConfig(**TRANSFORMER), vae=VAEConfig(**VAE))
NAMES = {"published": str, "pull request": keys.pull_request_name}
WORDS = (
    "a red circle moving left blue square over the hill caf\u00e9 stra\u00dfe \u4f60\u597d 123 don't A Big DOG".split()
)


def randomise(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return {name: value.clone() for name, value in module.state_dict().items()}


def make_states():
    """Published name -> tensor of each part, random."""
    torch.manual_seed(0)
    umt5 = {"shared.weight": (TEXT["vocab_size"], TEXT["d_model"]), **inferred.umt5(TEXT)}
    return {
        "transformer": randomise(HeliosTransformer(CONFIG.transformer)),
        "vae": randomise(WanVAE(CONFIG.vae)),
        "text_encoder": {name: 0.2 * torch.randn(shape) for name, shape in umt5.items()},
    }


def varint(value):
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def message(*fields):
    """A protobuf message of (number, whole number, float or bytes)."""
    out = b""
    for number, value in fields:
        kind = {int: 0, float: 5, bytes: 2}[type(value)]
        out += varint(number << 3 | kind)
        out += {0: varint, 5: lambda v: struct.pack("<f", v), 2: lambda v: varint(len(v)) + v}[kind](value)
    return out


def make_spiece():
    """Bytes of a small sentencepiece model: letters, and a few words that go before them."""
    pieces = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2)]
    pieces += [(letter, -9.0, 1) for letter in sorted({letter for word in WORDS for letter in word} | {"\u2581"})]
    pieces += [(f"\u2581{word}", -3.0, 1) for word in WORDS[:8]]
    assert len(pieces) <= TEXT["vocab_size"]
    listed = [(1, message((1, text.encode()), (2, score), (3, kind))) for text, score, kind in pieces]
    return message(*listed, (2, message((3, 1), (40, 2), (42, 1))), (3, message((4, 1))))


def bytes_tensor(data):
    return torch.tensor(list(data), dtype=torch.uint8)


def same(loaded, state):
    """Whether a module holds exactly these tensors; the joined projections of a transformer are taken apart."""
    found = dict(loaded.state_dict())
    for name in [n for n in found if ".attn1.to_qkv." in n]:
        for part, value in zip(("to_q", "to_k", "to_v"), found.pop(name).chunk(3), strict=True):
            found[name.replace("to_qkv", part)] = value
    assert set(found) == set(state)
    return all(torch.equal(found[name], value.to(found[name].dtype)) for name, value in state.items())


def scaled(state, scale_name, generator=None):
    """ComfyUI's scaled fp8: matrices as codes with one factor each; and what they stand for."""
    stored, meant = {}, {}
    for name, value in state.items():
        if value.ndim == 2 and "shared" not in name:
            scale = value.abs().amax() / 448
            stored[name] = (value / scale).to(torch.float8_e4m3fn)
            stored[name.removesuffix(".weight") + scale_name] = scale
            meant[name] = stored[name].float() * scale
        else:
            stored[name] = meant[name] = value
    return stored, meant
