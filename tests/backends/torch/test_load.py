"""Loading a transformer and a VAE on torch: every tensor, in the type asked for. M2, M4b, M8, M12."""

import pytest
import torch
from helios_video.helios_core.backends.torch import load as load_module
from helios_video.helios_core.backends.torch.load import load_transformer, load_vae
from helios_video.helios_core.checkpoint.sources import open_part
from safetensors.torch import load_file, save_file
from support import parts
from support.published import CONFIG, FILE, change, make_published


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_published(tmp_path_factory.mktemp("published") / "checkpoint")


def test_m12_nothing_is_computed_before_the_weights_are_there(tmp_path):
    """What depends on weights is made from the loaded ones: two files loaded in turn do not share anything."""
    states = parts.make_states()
    other = {name: value + 1 for name, value in states["transformer"].items()}
    save_file(states["transformer"], tmp_path / "a.safetensors")
    save_file(other, tmp_path / "b.safetensors")

    def tables(name):
        source = open_part(tmp_path / f"{name}.safetensors", "transformer")
        model = load_transformer(source, parts.CONFIG, dtype="fp32", device="cpu")
        _, vectors = model.condition_embedder(torch.zeros(1))
        return model.modulations(vectors)[0][0].shift

    first, second, again = tables("a"), tables("b"), tables("a")
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_m2_m4b_every_tensor_arrives(published):
    """Strict loading: what the files hold is what the models hold, bit for bit."""
    stored = {**load_file(published / "transformer" / "a.safetensors")}
    stored |= load_file(published / "transformer" / "b.safetensors")
    model = load_transformer(open_part(published, "transformer"), CONFIG, dtype="auto", device="cpu")
    state = model.state_dict()
    for name, tensor in stored.items():
        if name not in state:  # the joined self-attention projections
            block, attention, part, kind = name.rsplit(".", 3)
            joined = state[f"{block}.{attention}.to_qkv.{kind}"].chunk(3)
            state[name] = joined[("to_q", "to_k", "to_v").index(part)]
        assert torch.equal(state[name], tensor), name
    vae = load_vae(open_part(published, "vae"), CONFIG, device="cpu")
    for name, tensor in load_file(published / "vae" / FILE).items():
        assert torch.equal(vae.state_dict()[name], tensor), name
    assert not any(p.requires_grad or p.is_meta for m in (model, vae) for p in m.parameters())


@pytest.mark.parametrize("dtype,wanted", [("auto", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_m8_weight_dtypes(published, dtype, wanted):
    """Matrices in the dtype asked for; the reference's float32 islands stay float32."""
    model = load_transformer(open_part(published, "transformer"), CONFIG, dtype=dtype, device="cpu")
    assert model.dtype == model.blocks[0].ffn.net[2].weight.dtype == model.patch_long.weight.dtype == wanted
    islands = ("time_embedder", "scale_shift_table", "norm2")
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == (torch.float32 if any(part in name for part in islands) else wanted), name


def test_auto_dtype_is_the_stored_one(tmp_path):
    folder = make_published(tmp_path / "checkpoint")
    for file in (folder / "transformer").glob("*.safetensors"):
        change(file, lambda tensors: {k: v.bfloat16() for k, v in tensors.items()})
    model = load_transformer(open_part(folder, "transformer"), CONFIG, dtype="auto", device="cpu")
    assert model.dtype == torch.bfloat16


def test_what_is_free_for_apples_gpu_is_no_more_than_the_host_has(monkeypatch):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 20)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 5)
    for host, free in ((9, 9), (90, 15), (None, 15)):
        monkeypatch.setattr(load_module, "host_free", lambda host=host: host)
        assert load_module.free_memory("mps") == free
