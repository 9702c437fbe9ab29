"""Converting between layouts: byte-equal round trips, what does not go together, nothing overwritten."""

import json

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.checkpoint import headers
from helios_video.helios_core.cli import main
from helios_video.helios_core.convert import layouts
from helios_video.helios_core.convert.convert import convert
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.files import TOKENIZER, small_files


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
    from helios_video.helios_core.checkpoint import writer

    monkeypatch.setattr(writer.shutil, "disk_usage", lambda place: type("usage", (), {"free": 1000}))
    with pytest.raises(ValueError, match=r"0\.0 GB and its disk has 0\.0 GB free|needs .* GB"):
        convert(published, tmp_path / "out")


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
