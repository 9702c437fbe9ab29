"""`helios inspect`: what files are, told from their headers; loading's errors name it."""

import json
import shutil

import numpy as np
import pytest
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import inspect as command
from helios_video.helios_core.convert import convert
from safetensors.numpy import save_file


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """helios-tiny as one file, as a folder, and as ComfyUI's three files."""
    folder, source = tmp_path_factory.mktemp("inspect"), command.find("helios-tiny")
    convert(source, folder / "tiny.safetensors")
    convert(source, folder / "tiny-comfy", form="comfy")
    convert(source, folder / "int8.safetensors", kind="int8")
    shutil.copytree(source, folder / "folder")
    return folder


def told(capsys, path):
    code = main(["inspect", str(path)])
    return code, capsys.readouterr().out


def test_a_whole_checkpoint_in_each_form(tiny, capsys):
    for path, place in ((tiny / "tiny.safetensors", "diffusion_models"), (tiny / "folder", "models/helios")):
        code, said = told(capsys, path)
        assert code == 0 and "it is Helios-Distilled" in said and place in said and "lacks" not in said
        assert f"helios generate --model {path} --prompt" in said
        for text in ("transformer: 2.7 million weights, 4 blocks of 160: BF16", "vae: ", "its tokenizer is there"):
            assert text in said
    assert "int8 in 40 tensors" in told(capsys, tiny / "int8.safetensors")[1]


@pytest.mark.parametrize("kind,part", [("diffusion_models", "transformer"), ("vae", "vae"), ("text_encoders", "text")])
def test_single_parts(tiny, capsys, kind, part):
    (path,) = (tiny / "tiny-comfy" / kind).glob("*.safetensors")
    code, said = told(capsys, path)
    assert code == 0 and f"models/{kind}" in said
    if part == "transformer":
        assert "lacks vae, text encoder" in said and f"--model {path} --vae wan_2.1_vae.safetensors --text" in said
    else:
        assert f"{'--vae' if part == 'vae' else '--text-encoder'} {path} " in said and "lacks" not in said


def test_a_folder_of_a_file_per_network(tiny, capsys):
    """As `convert --format comfy` and `gguf` write; a command that takes the folder for a checkpoint points here."""
    code, said = told(capsys, tiny / "tiny-comfy")
    assert code == 0 and "it is Helios-Distilled in one file per network" in said
    files = [next((tiny / "tiny-comfy" / place).iterdir()) for place in ("diffusion_models", "vae", "text_encoders")]
    assert "generate --model {} --vae {} --text-encoder {} --prompt".format(*files) in said
    with pytest.raises(ValueError, match="model_index.json is missing.*What the file is: helios inspect"):
        load(tiny / "tiny-comfy")


def test_a_folder_with_something_missing(tiny, capsys, tmp_path):
    shutil.copytree(tiny / "folder", tmp_path / "x")
    shutil.rmtree(tmp_path / "x" / "vae")
    (tmp_path / "x" / "model_index.json").unlink()
    code, said = told(capsys, tmp_path / "x")
    assert code == 2 and "lacks the folder vae, model_index.json" in said and "use it" not in said
    assert told(capsys, tmp_path / "x" / "transformer")[0] == 2
    code, said = told(capsys, tiny / "folder" / "vae")
    assert code == 0 and f"--vae {tiny / 'folder'} " in said


def test_a_part_that_does_not_fit(tiny, capsys, tmp_path):
    shutil.copytree(tiny / "folder", tmp_path / "x")
    config = json.loads((tmp_path / "x" / "transformer" / "config.json").read_text())
    (tmp_path / "x" / "transformer" / "config.json").write_text(json.dumps(config | {"ffn_dim": 64}))
    code, said = told(capsys, tmp_path / "x")
    assert code == 2 and "transformer: cannot be used" in said and "misshapen" in said
    with pytest.raises(ValueError, match=r"What the file is: helios inspect .*transformer"):
        load(tmp_path / "x")


def test_what_does_not_load_is_not_to_be_used(tiny, capsys, tmp_path):
    (path,) = (tiny / "tiny-comfy" / "text_encoders").glob("*.safetensors")
    (tmp_path / "x.safetensors").write_bytes(path.read_bytes().replace(b"tokenizer.tokenizer", b"takenizer.tokenizer"))
    code, said = told(capsys, tmp_path / "x.safetensors")
    assert code == 2 and "it is a text encoder" in said and "cannot be used" in said and "use it" not in said


def test_a_lora_a_workflow_a_picture_and_others(capsys, tmp_path):
    name = "diffusion_model.blocks.0.self_attn.q"
    pair = {
        f"{name}.lora_A.weight": np.zeros((8, 64), np.float32),
        f"{name}.lora_B.weight": np.zeros((64, 8), np.float32),
    }
    save_file(pair, tmp_path / "style.safetensors")
    save_file({"double_blocks.0.img_attn_qkv.weight": np.zeros(2, np.float32)}, tmp_path / "hunyuan.safetensors")
    save_file({"a.b": np.zeros(2, np.float32)}, tmp_path / "strange.safetensors")
    save_file({"a.b": np.zeros(2, np.float32)}, tmp_path / "x-00001-of-00003.safetensors")
    save_file({"history": np.zeros(2, np.float32)}, tmp_path / "run.safetensors", {"format": "helios-history"})
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><html>" * 9)
    (tmp_path / "graph.json").write_text(json.dumps({"1": {"class_type": "HeliosLoader", "inputs": {}}}))
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": {}}))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "transformer_partial.pth").write_bytes(b"PK\x03\x04")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes(99))
    (tmp_path / "old.ckpt").write_bytes(b"PK\x03\x04")
    for file in ("cat.png", "clip.mp4"):
        (tmp_path / file).write_bytes(b"x")
    for file, code, text in (
        (
            "style.safetensors",
            0,
            "2 matrices of rank 8\n  it is a LoRA\n  use it: helios generate --model MODEL --lora",
        ),
        ("hunyuan.safetensors", 2, "a HunyuanVideo transformer, which nothing here takes"),
        ("strange.safetensors", 2, "of no model that is known here: a.b"),
        ("x-00001-of-00003.safetensors", 2, "one of several shards"),
        ("run.safetensors", 0, "--resume"),
        ("page.safetensors", 2, "cannot be used: "),
        ("graph.json", 0, "helios run"),
        ("index.json", 2, "the index of a checkpoint's shards"),
        ("broken.json", 2, "is not JSON"),
        ("transformer_partial.pth", 0, "--lora-companion"),
        ("cut.gguf", 2, "GGUF"),
        ("old.ckpt", 2, "a torch pickle or another zip"),
        ("cat.png", 0, "--image"),
        ("clip.mp4", 0, "--video"),
        (".", 2, "a folder and no checkpoint"),
    ):
        found = told(capsys, tmp_path / file)
        assert found[0] == code and text in found[1], (file, found)


def test_what_is_not_there(capsys):
    assert main(["inspect", "gone.safetensors"]) == 2
    assert "gone.safetensors" in capsys.readouterr().err


def test_the_adapter_that_ships_goes_by_its_name(capsys):
    code, said = told(capsys, "helios-tiny-control")
    assert code == 0 and "it is a control adapter (track)" in said


def test_a_unified_latents_model(capsys):
    file = command.find("helios-tiny").parent / "helios-tiny-ul.safetensors"
    code, said = told(capsys, file)
    assert code == 0 and "it is a Unified Latents model of " in said
