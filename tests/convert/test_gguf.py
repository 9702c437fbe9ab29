"""GGUF files that `helios convert` writes: read by the gguf package, by ours, and back into a folder."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch.files import widen
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.checkpoint import gguf, open_part
from helios_video.helios_core.checkpoint.names import pull_request_name
from helios_video.helios_core.checkpoint.precision import is_quantised
from helios_video.helios_core.config.model import TransformerConfig
from helios_video.helios_core.convert import gguf_quants
from helios_video.helios_core.convert.convert import convert
from helios_video.helios_core.pipeline import TINY
from helios_video.helios_core.text.tokenizer import load_tokenizer
from safetensors.torch import load_file, save_file
from support import gguf as made
from support.files import small_files
from support.parts import WORDS, make_spiece, message

ERRORS = {"q8_0": 0.006, "q6_k": 0.019, "q5_1": 0.04, "q5_k": 0.039, "q5_0": 0.044, "q4_1": 0.08, "q4_k": 0.077}
ERRORS |= {"q4_0": 0.088}


@pytest.mark.parametrize("kind", gguf_quants.KINDS)
def test_the_error_of_each_type(kind):
    w = np.random.default_rng(0).standard_normal((32, 1024)).astype(np.float32)
    blocks = gguf_quants.quantise(w, kind).reshape(32, -1)
    again = made.package.dequantize(blocks, made.TYPES[kind.upper()])
    error = np.linalg.norm(again - w) / np.linalg.norm(w)
    print(f"{kind}: relative error {error:.4f}")
    assert 0.8 * ERRORS[kind] < error < ERRORS[kind]
    assert np.array_equal(gguf_quants.quantise(w, kind).reshape(32, -1), blocks)
    flat = np.zeros((2, 256), np.float32)
    flat[1] = 0.5
    again = made.package.dequantize(gguf_quants.quantise(flat, kind).reshape(2, -1), made.TYPES[kind.upper()])
    assert np.abs(again - flat).max() < 1e-3


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A transformer as wide as blocks of 256 need it, about 8 M parameters, in one file."""
    config = dict(num_attention_heads=2, attention_head_dim=128, ffn_dim=512, num_layers=6, text_dim=64, freq_dim=128)
    torch.manual_seed(0)
    model = HeliosTransformer(TransformerConfig(**config))
    state = {name: 0.03 * torch.randn_like(value) for name, value in model.state_dict().items()}
    state = {k: v.bfloat16() if v.ndim == 2 else v for k, v in state.items()}
    path = tmp_path_factory.mktemp("wide") / "Helios-Mid-wide.safetensors"
    save_file(state, path)
    return path, state


@pytest.mark.parametrize("kind", gguf_quants.KINDS)
def test_a_transformer_in_comfyuis_names(wide, tmp_path, kind):
    """ComfyUI-GGUF reads by the package, takes the architecture wan, and widens linear layers alone."""
    path, state = wide
    (out,) = convert(path, tmp_path / "x.gguf", kind=kind)
    reader = made.package.GGUFReader(out)
    assert bytes(reader.get_field("general.architecture").parts[-1]) == b"wan"
    types = {t.name: t.tensor_type.name for t in reader.tensors}
    assert set(types) == {pull_request_name(name) for name in state}
    for name, value in state.items():
        wanted = kind.upper() if is_quantised(name) else "BF16" if value.ndim == 2 else "F32"
        assert types[pull_request_name(name)] == ("F32" if "time_embedder" in name else wanted), name
    field = reader.get_field("comfy.gguf.orig_shape.patch_short.weight")
    assert [int(field.parts[i][0]) for i in field.data] == list(state["patch_short.weight"].shape)
    source, numbers = open_part(out, "transformer"), made.read(out)
    for name, stored in source.tensors.items():
        assert np.array_equal(widen(stored).float().numpy().ravel(), numbers[pull_request_name(name)].ravel())
        assert is_quantised(name) or torch.equal(widen(stored).float(), state[name].float())


@pytest.fixture
def whole(published, tmp_path):
    """The published folder with a tokenizer that works."""
    shutil.copytree(published, tmp_path / "whole")
    (tmp_path / "whole" / "tokenizer" / "spiece.model").write_bytes(make_spiece())
    return tmp_path / "whole"


def test_both_networks_and_back_into_a_folder(whole, tmp_path):
    """Through q8_0 the numbers are near, all else to the letter; once more, and they are the same."""
    published, outs = whole, convert(whole, tmp_path / "g", form="gguf", kind="q8_0")
    assert [out.name for out in outs] == ["g_transformer.gguf", "g_vae.safetensors", "g_text_encoder.gguf"]
    parts = dict(text_encoder=outs[2], vae=outs[1])
    convert(outs[0], tmp_path / "folder", **parts)
    names = {name for name in small_files(published) if name != "tokenizer/spiece.model"}
    assert {n: small_files(tmp_path / "folder")[n] for n in names} == {n: small_files(published)[n] for n in names}
    for part in ("transformer", "text_encoder"):
        before, after = open_part(published, part), open_part(tmp_path / "folder", part)
        assert before.tensors.keys() == after.tensors.keys()
        for name, stored in before.tensors.items():
            old, new = widen(stored).float(), widen(after.tensors[name]).float()
            assert old.shape == new.shape and (old - new).norm() <= 0.007 * old.norm()
    again = convert(tmp_path / "folder", tmp_path / "again", form="gguf")
    convert(again[0], tmp_path / "second", text_encoder=again[2], vae=again[1])
    for part in ("transformer", "text_encoder"):
        first, second = (load_file(next((tmp_path / f / part).glob("*.safetensors"))) for f in ("folder", "second"))
        assert all(torch.equal(first[name].float(), second[name].float()) for name in first)


def test_a_sampled_video_from_both_files(tmp_path):
    outs = convert(TINY, tmp_path / "tiny", form="gguf", kind="q8_0")
    one, plain = load(outs[0], vae=outs[1], text_encoder=outs[2]), load()
    assert one.config == plain.config
    with torch.inference_mode():
        latents = []
        for helios in (one, plain):
            *_, step = helios.sample(helios.history(64, 64), helios.text("a red circle"), seed=0)
            latents.append(step.latent.float())
    error = float((latents[0] - latents[1]).norm() / latents[1].norm())
    print(f"helios-tiny in q8_0, both networks: relative error of a chunk {error:.4f}")
    assert error < 0.2


def test_rows_of_no_whole_blocks_fall_back_and_it_is_said(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    (out,) = convert(TINY, tmp_path / "x.gguf", kind="q4_k")
    assert "no matrix has rows of whole blocks of q4_k" in caplog.text
    assert open_part(out, "transformer").quantised == "q8_0"


def test_what_cannot_be_written_is_refused_by_name(published, tmp_path):
    for kind in ("q2_k", "q3_k", "iq4_nl", "iq4_xs"):
        with pytest.raises(ValueError, match=f"{kind} cannot be written into GGUF; it is read, but made by llama.cpp"):
            convert(published, tmp_path / "x", form="gguf", kind=kind)
    with pytest.raises(ValueError, match="int8 cannot be written into GGUF. Choose one of q8_0"):
        convert(published, tmp_path / "x", form="gguf", kind="int8")
    with pytest.raises(ValueError, match="q4_k is a type of GGUF; choose the format gguf"):
        convert(published, tmp_path / "x", kind="q4_k")
    with pytest.raises(ValueError, match="would hold transformer, vae, text_encoder"):
        convert(published, tmp_path / "x.gguf", parts=["transformer", "vae", "text_encoder"])
    with pytest.raises(ValueError, match="ends in .safetensors or .gguf"):
        convert(published, tmp_path / "x.gguf", form="folder")
    (out,) = convert(published, tmp_path / "y.gguf", kind="q8_0")
    for kind in ("q8_0", "q4_0"):
        with pytest.raises(ValueError, match=r"quantised already \(q8_0\)"):
            convert(out, tmp_path / "z.gguf", kind=kind)
    assert not (tmp_path / "x").exists() and not (tmp_path / "z.gguf").exists()


def test_nan_is_refused_and_nothing_is_left(wide, tmp_path):
    path, state = wide
    state = {name: value.clone() for name, value in state.items()}
    state["blocks.1.attn1.to_q.weight"][3, 4] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match="blocks.1.attn1.to_q.weight holds NaN"):
        convert(tmp_path / "nan.safetensors", tmp_path / "x.gguf", kind="q8_0")
    assert not list(tmp_path.glob("*x.gguf*"))


def test_the_tokenizer_is_in_llama_cpps_lists(whole, tmp_path):
    (whole / "tokenizer" / "tokenizer.json").unlink()
    (out,) = convert(whole, tmp_path / "t.gguf", parts=["text_encoder"])
    values = gguf.read(out).values
    config = json.loads((whole / "text_encoder" / "config.json").read_bytes())
    assert values["general.architecture"] == "t5encoder" and values["t5encoder.block_count"] == config["num_layers"]
    prompts = [*WORDS, " ".join(WORDS)]
    plain = load_tokenizer(whole / "tokenizer", 20)(prompts)
    assert load_tokenizer(open_part(out, "text_encoder").tokenizer, 20)(prompts) == plain


@pytest.mark.parametrize("option, words", [((2, (24, 1)), "whitespace_as_suffix"), ((3, (5, 0)), "escape_whitespaces")])
def test_a_tokenizer_that_the_lists_cannot_describe_is_refused(option, words, published, tmp_path):
    part, own = option
    shutil.copytree(published, tmp_path / "x")
    shutil.rmtree(tmp_path / "x" / "tokenizer")
    (tmp_path / "x" / "tokenizer").mkdir()
    said = {2: [(3, 1), (40, 2), (42, 1)], 3: [(4, 1)]}[part]
    (tmp_path / "x" / "tokenizer" / "spiece.model").write_bytes(make_spiece() + message((part, message(*said, own))))
    with pytest.raises(ValueError, match=words):
        convert(tmp_path / "x", tmp_path / "x.gguf", parts=["text_encoder"])
