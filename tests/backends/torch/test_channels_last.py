"""The order of channels in convolutions' weights: when it is changed, what follows it, and that the result does not."""

import pytest
import torch
from helios_video.helios_core.backends.torch import channels_last, vae_conv
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.config.model import TransformerConfig, VAEConfig
from support.transformer import SIZES, error

LAST = torch.channels_last_3d
KINDS = {"cuda": True, "cpu": False, "mps": False}


def build(dtype=torch.float32) -> WanVAE:
    torch.manual_seed(0)
    return WanVAE(VAEConfig(base_dim=8)).eval().requires_grad_(False).to(dtype)


@pytest.mark.parametrize("device", KINDS)
def test_it_is_for_half_precision_on_cuda(device):
    halves = (torch.bfloat16, torch.float16)
    assert all(channels_last.wanted(device, dtype) == KINDS[device] for dtype in halves)
    assert not channels_last.wanted(device, torch.float32)


def test_no_convolution_in_three_dimensions_is_laid_out_plainly(monkeypatch):
    """What torch would pass cuDNN over for, and what cuDNN computed wrongly: neither input nor weight channels last."""
    seen = []
    real = torch.nn.functional.conv3d

    def watched(x, weight, *args, **kwargs):
        plain = not any(t.is_contiguous(memory_format=LAST) for t in (x, weight))
        seen.append((tuple(weight.shape[2:]), plain))
        return real(x, weight, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "conv3d", watched)
    monkeypatch.setattr(vae_conv, "fused", lambda *_: False)  # as on a GPU
    monkeypatch.setattr(vae_conv, "plain_cpu", lambda _: False)
    monkeypatch.setattr(torch.nn.Conv3d, "_conv_forward", lambda self, x, w, b: watched(x, w, b, self.stride))
    vae = build()
    z, x = torch.randn(1, 16, 3, 4, 4), torch.randn(1, 3, 9, 32, 32)
    run = lambda: (vae.decode(z), *vae.encode(x))  # noqa: E731
    before = run()
    assert any(plain for size, plain in seen if size == (3, 3, 3))
    seen.clear()
    channels_last.lay_out(vae)
    after = run()
    assert len(seen) > 50 and not [size for size, plain in seen if plain and size != (1, 1, 1)]
    assert all(error(a, b) < 1e-5 for a, b in zip(after, before))


def test_it_stays_as_weights_move_and_are_copied():
    vae = channels_last.lay_out(build())
    moved = vae.to(torch.bfloat16)
    assert moved.decoder.conv_in.weight.is_contiguous(memory_format=LAST)
    assert all(t.data_ptr() for t in moved.parameters())


def test_patch_embeddings_are_laid_out_too():
    torch.manual_seed(0)
    model = HeliosTransformer(TransformerConfig(**SIZES)).eval().requires_grad_(False)
    x = torch.randn(1, 16, 2, 8, 8)
    plain = model.patch_embedding(x)
    channels_last.lay_out(model)
    tokens = model.patch_embedding(x)
    assert error(tokens, plain) < 1e-6
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv3d)]
    assert len(convolutions) == 4
    assert all(m.weight.is_contiguous(memory_format=LAST) for m in convolutions)
