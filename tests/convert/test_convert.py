"""Converting between layouts: byte-equal round trips, quantised files, memory, nothing overwritten. M27."""

import json
import subprocess
import sys

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch.quant import quantise
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.checkpoint import headers, inferred
from helios_video.helios_core.checkpoint.names import WHOLE
from helios_video.helios_core.checkpoint.precision import QUANTISED, is_quantised, quantised_layout
from helios_video.helios_core.cli import main
from helios_video.helios_core.config.model import TransformerConfig, VAEConfig
from helios_video.helios_core.convert import layouts
from helios_video.helios_core.convert.convert import convert
from helios_video.helios_core.convert.writer import writing
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TRANSFORMER = dict(num_attention_heads=1, ffn_dim=24, num_layers=2, text_dim=16, freq_dim=8)
VAE = dict(base_dim=4, dim_mult=(1, 2, 2, 2), num_res_blocks=1)
TEXT = dict(vocab_size=60, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=2, relative_attention_num_buckets=8)
TOKENIZER = {"tokenizer.json": b"{}\r\n", "spiece.model": b"\n\x05\n\x01a\xff"}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published folder whose weights are random, of several types, with a config's every character kept."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published") / "Helios-Mid"
    for part in ("transformer", "vae", "text_encoder", "scheduler", "tokenizer"):
        (folder / part).mkdir(parents=True)
    texts = {
        "model_index.json": {"_class_name": "HeliosPyramidPipeline", "is_cfg_zero_star": True, "note": "\u00fc"},
        "scheduler/scheduler_config.json": {"_class_name": "HeliosScheduler"},
        "generation_config.json": {"width": 128, "height": 64},
        "transformer/config.json": TRANSFORMER,
        "vae/config.json": VAE,
        "text_encoder/config.json": TEXT,
    }
    for name, value in texts.items():
        (folder / name).write_bytes(json.dumps(value, indent=3, ensure_ascii=False).encode())
    for name, data in TOKENIZER.items():
        (folder / "tokenizer" / name).write_bytes(data)
    transformer = HeliosTransformer(TransformerConfig(**TRANSFORMER)).state_dict()
    transformer = {
        k: torch.randn_like(v) if "table" in k else torch.randn_like(v).bfloat16() for k, v in transformer.items()
    }
    save_file(transformer, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    vae = {name: torch.randn_like(v) for name, v in WanVAE(VAEConfig(**VAE)).state_dict().items()}
    save_file(vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
    umt5 = {"shared.weight": (60, 16), **inferred.umt5(TEXT)}
    save_file({k: torch.randn(s).half() for k, s in umt5.items()}, folder / "text_encoder" / "model.safetensors")
    return folder


def tensors(folder):
    """Every tensor of a published folder, as bytes."""
    found = {}
    for part in ("transformer", "vae", "text_encoder"):
        for name, info in headers.read_headers(folder / part).items():
            with info.file.open("rb") as file:
                file.seek(info.start)
                data = file.read(headers.nbytes(info.dtype, info.shape))
            found[part, name] = (info.dtype, info.shape, data)
    return found


def small_files(folder):
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if "safetensors" not in name}


def test_folder_to_single_file_and_back_is_byte_equal(published, tmp_path):
    convert(published, tmp_path / "all.safetensors")
    convert(tmp_path / "all.safetensors", tmp_path / "back")
    assert tensors(tmp_path / "back") == tensors(published)
    assert small_files(tmp_path / "back") == small_files(published)
    assert {p.name for p in tmp_path.iterdir()} == {"all.safetensors", "back"}
    # One shard again, and the reference's own order of tensors: the very same file.
    for name in ("transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        ours, theirs = (load_file(f / f"{name}.safetensors") for f in (tmp_path / "back", published))
        assert list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_folder_to_comfyui_files_and_back_is_byte_equal(published, tmp_path):
    files = convert(published, tmp_path / "mid", form="comfy")
    assert [f.relative_to(tmp_path / "mid").as_posix() for f in files] == [
        "diffusion_models/mid_transformer.safetensors",
        "vae/mid_vae.safetensors",
        "text_encoders/mid_text_encoder.safetensors",
    ]
    assert "time_projection.1.weight" in load_file(files[0]) and "decoder.upsamples.0.residual.2.weight" in load_file(
        files[1]
    )
    assert load_file(files[2])["spiece_model"].numpy().tobytes() == TOKENIZER["spiece.model"]
    convert(files[0], tmp_path / "back", vae=files[1], text_encoder=files[2])
    assert tensors(tmp_path / "back") == tensors(published)
    assert small_files(tmp_path / "back") == small_files(published)


def test_a_transformer_alone_keeps_its_configs(published, tmp_path):
    (file,) = convert(published, tmp_path / "mid.safetensors", parts=["transformer"])
    assert set(load_file(file)) == {name for part, name in tensors(published) if part == "transformer"}
    model = load(file, vae=published, text_encoder=published)
    assert model.config.variant == "mid" and model.config.defaults.width == 128
    with safe_open(file, "pt") as opened:
        texts = json.loads(opened.metadata()["helios"])
    assert texts["transformer/config.json"] == (published / "transformer" / "config.json").read_text()
    assert "vae/config.json" not in texts
    with pytest.raises(ValueError, match="a published folder needs vae, text_encoder too"):
        convert(file, tmp_path / "back")


def test_shards_and_their_index(published, tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "SHARD", 1_000_000)
    convert(published, tmp_path / "out")
    files = sorted(p.name for p in (tmp_path / "out" / "transformer").glob("*.safetensors"))
    assert len(files) > 1 and files[0] == f"diffusion_pytorch_model-00001-of-{len(files):05d}.safetensors"
    assert all((tmp_path / "out" / "transformer" / f).stat().st_size < 1_400_000 for f in files)
    assert tensors(tmp_path / "out") == tensors(published)
    load(tmp_path / "out")


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("name", ["x.safetensors", "folder"])
def test_quantised_checkpoints(published, tmp_path, kind, name):
    """Codes and factors are those of quantising on load; all other tensors stay as they are."""
    convert(published, tmp_path / name, kind=kind)
    before = load_file(published / "transformer" / "diffusion_pytorch_model.safetensors")
    if name == "folder":
        after = load_file(tmp_path / name / "transformer" / "diffusion_pytorch_model.safetensors")
        assert small_files(tmp_path / name) == small_files(published)
    else:
        prefix = WHOLE["transformer"][0]
        after = {k.removeprefix(prefix): v for k, v in load_file(tmp_path / name).items() if k.startswith(prefix)}
    expected = {k: v for k, v in before.items() if not is_quantised(k)}
    for key in before.keys() - expected.keys():
        expected |= quantise(key, before[key], kind)
    assert after.keys() == expected.keys()
    assert all(v.dtype == after[k].dtype and torch.equal(v.float(), after[k].float()) for k, v in expected.items())
    model = load(tmp_path / name)
    assert model.checkpoint.sources["transformer"].quantised == kind
    direct, read = load(published, weight_dtype=kind).parts.transformer, model.parts.transformer
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(direct.buffers(), read.buffers(), strict=True))
    assert type(read.blocks[0].ffn.net[2]).__name__ == "QuantLinear"


@pytest.mark.parametrize("kind", QUANTISED)
def test_the_layout_is_what_quantising_gives(kind):
    for shape in ((8, 128), (6, 24), (4, 2)):
        parts = quantise("x.weight", torch.randn(shape), kind)
        names = {torch.float8_e4m3fn: "F8_E4M3", torch.float32: "F32", torch.bfloat16: "BF16"}
        names |= {torch.int8: "I8", torch.uint8: "U8"}
        found = {name: (names[value.dtype], tuple(value.shape)) for name, value in parts.items()}
        assert quantised_layout("x.weight", shape, kind) == found


def test_m27_a_quantised_checkpoint_is_not_quantised_again(published, tmp_path):
    convert(published, tmp_path / "q.safetensors", kind="int8")
    for kind in QUANTISED:
        with pytest.raises(ValueError, match="quantised already.*quantise the original"):
            convert(tmp_path / "q.safetensors", tmp_path / "qq.safetensors", kind=kind)
    convert(tmp_path / "q.safetensors", tmp_path / "folder")  # only moved, it is fine
    assert load(tmp_path / "folder").sources["transformer"].quantised == "int8"
    assert not (tmp_path / "qq.safetensors").exists()


@pytest.mark.parametrize("name", ["blocks.1.attn1.to_q.weight", "blocks.1.attn1.to_q.bias", "proj_out.weight"])
def test_m27_nan_is_refused_and_nothing_is_left(published, tmp_path, name):
    convert(published, tmp_path / "broken")
    file = tmp_path / "broken" / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state[name].view(-1)[3] = float("nan")
    save_file(state, file)
    for out in ("out.safetensors", "out"):
        with pytest.raises(ValueError, match=f"{name} holds NaN"):
            convert(tmp_path / "broken", tmp_path / out, kind="fp8_e4m3fn")
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]


def test_comfyuis_scaled_fp8_stays_what_it_is(published, tmp_path):
    state = load_file(published / "text_encoder" / "model.safetensors")
    name = "encoder.block.0.layer.0.SelfAttention.q."
    state[f"{name}weight"] = state[f"{name}weight"].to(torch.float8_e4m3fn)
    scale, model = torch.tensor(0.5), torch.tensor(list(b"model"), dtype=torch.uint8)
    file = tmp_path / "umt5.safetensors"
    save_file(state | {f"{name}scale_weight": scale, "spiece_model": model}, file)
    (out,) = convert(file, tmp_path / "comfy", form="comfy")
    after = load_file(out)
    assert after.pop("scaled_fp8").dtype == torch.float8_e4m3fn and after[f"{name}scale_weight"] == 0.5
    assert after.keys() == load_file(file).keys() and torch.equal(after["spiece_model"], model)
    convert(published, tmp_path / "q.safetensors", kind="fp8_e4m3fn", parts=["transformer"])
    with pytest.raises(ValueError, match="ComfyUI itself does not read"):
        convert(tmp_path / "q.safetensors", tmp_path / "other", form="comfy")


def test_nothing_is_overwritten(published, tmp_path):
    for name in ("there.safetensors", "there"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ValueError, match="exists already; nothing is overwritten"):
            convert(published, tmp_path / name)
        assert (tmp_path / name).read_text() == "mine"


WRONG = [
    (dict(form="zip"), "x", "wanted one of folder, single, comfy"),
    (dict(form="single"), "x", "a single file's name ends in .safetensors"),
    (dict(form="folder"), "x.safetensors", "a single file's name ends in .safetensors"),
    (dict(form="comfy", kind="int8"), "x", "take the format single"),
    (dict(kind="int3"), "x", "wanted one of fp8_e4m3fn, int8, int4"),
    (dict(parts=["vae"], kind="int8"), "x.safetensors", "only the transformer is quantised"),
]


@pytest.mark.parametrize("options,name,words", WRONG)
def test_what_does_not_go_together_is_refused(published, tmp_path, options, name, words):
    with pytest.raises(ValueError, match=words):
        convert(published, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_incomplete_checkpoints_are_refused_before_anything_is_written(published, tmp_path):
    convert(published, tmp_path / "broken")
    file = tmp_path / "broken" / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k != "quant_conv.bias"}, file)
    with pytest.raises(ValueError, match=r"1 missing: quant_conv\.bias"):
        convert(tmp_path / "broken", tmp_path / "out")
    with pytest.raises(ValueError, match="is missing"):
        convert(tmp_path / "nowhere", tmp_path / "out")


def test_a_full_disk_is_noticed_before(published, tmp_path, monkeypatch):
    from helios_video.helios_core.convert import writer

    monkeypatch.setattr(writer.shutil, "disk_usage", lambda place: type("usage", (), {"free": 1000}))
    with pytest.raises(ValueError, match=r"0\.0 GB and its disk has 0\.0 GB free|needs .* GB"):
        convert(published, tmp_path / "out")


def test_the_writer_wants_every_byte(tmp_path):
    layout = {"a": ("F32", (2,)), "b": ("U8", (3,))}
    with writing(tmp_path / "x.safetensors", layout, {"format": "pt"}) as out:
        out.put("b", [b"12", b"3"])
        out.put("a", [bytes(8)])
    assert load_file(tmp_path / "x.safetensors")["b"].tolist() == [49, 50, 51]
    with pytest.raises(ValueError, match="2 bytes for b, which has 3"), writing(tmp_path / "y", layout, {}) as out:
        out.put("b", [b"12"])
    with pytest.raises(ValueError, match="nothing was written for a"), writing(tmp_path / "y", layout, {}) as out:
        out.put("b", [b"123"])
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_what_comes_meanwhile_is_not_replaced(tmp_path):
    """Hours may lie between the look at the start and the end."""
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="exists already"), writing(path, {"a": ("U8", (1,))}, {}) as out:
        out.put("a", [b"1"])
        path.write_text("somebody's")
    assert path.read_text() == "somebody's" and [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("name", ["f", "x.safetensors", "c"])
def test_after_a_failure_nothing_is_left(published, tmp_path, monkeypatch, name):
    def full(stored):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layouts, "read_chunks", full)
    with pytest.raises(OSError, match="No space"):
        convert(published, tmp_path / name, form="comfy" if name == "c" else "")
    assert not list(tmp_path.iterdir())


def test_the_command(published, tmp_path, capsys):
    out = tmp_path / "tiny.safetensors"
    assert main(["convert", str(published), str(out), "--quantize", "fp8_e4m3fn", "--parts", "transformer"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert main(["convert", str(published), str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (
        main(["convert", str(out), str(tmp_path / "f"), "--vae", str(published), "--text-encoder", str(published)]) == 0
    )
    assert load(tmp_path / "f").config.variant == "mid"


# malloc gives memory back that it has from the system as such; of the 14B model's tensors that is every one.
OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536"}
PEAK = """
import gc, sys
from helios_video.helios_core import load
from helios_video.helios_core.convert import convert
from helios_video.helios_core.backends.torch import load as backend
def memory(name):
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(name))
def load_and_cast():
    load(source, weight_dtype="fp16").transformer
def load_and_use():
    for parameter in load(source).transformer.parameters():
        parameter.sum()
source, out = sys.argv[1:]
convert(source, f"{out}/0.safetensors", parts=["vae"])  # imports what else there is
load(source)
for work in (
    lambda: convert(source, f"{out}/1.safetensors"),
    lambda: convert(source, f"{out}/2.safetensors", kind="int8"),
    load_and_cast,
    load_and_use,
):
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forgets the peak
    before = memory("VmRSS")
    work()
    print(memory("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def large(published, tmp_path_factory):
    """A checkpoint whose transformer has 110 MB in bf16."""
    folder = tmp_path_factory.mktemp("large") / "checkpoint"
    convert(published, folder)
    config = TRANSFORMER | dict(num_attention_heads=4, ffn_dim=4096, num_layers=8)
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    with torch.device("meta"):
        state = HeliosTransformer(TransformerConfig(**config)).state_dict()
    save_file({name: torch.ones(value.shape, dtype=torch.bfloat16) for name, value in state.items()}, file)
    return folder, file.stat().st_size


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory(large, tmp_path):
    """Beyond the libraries: converting holds a tensor or a chunk, loading one copy of the weights."""
    folder, size = large
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), str(tmp_path)],
        capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1", "PATH": "", **OWN_PAGES},
    )  # fmt: skip
    shares = [int(line) / size for line in done.stdout.split()]
    convert, quantise, cast, use = shares
    print("peak memory over weights: convert {:.2f}, quantise {:.2f}, cast {:.2f}, use {:.2f}".format(*shares))
    base = 2**24 / size  # what an allocator does not give back at once
    assert convert < base and quantise < 0.5 and cast < 1.1 + base and use < 1.1 + base
