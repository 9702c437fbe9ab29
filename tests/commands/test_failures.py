"""Errors of libraries in one message, and what is asked for within bounds."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core import cli, load
from helios_video.helios_core.checkpoint import read_header
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import bench, doctor, failures, outputs, render
from helios_video.helios_core.disk.safe_files import beside, free_name, write
from helios_video.helios_core.join import frame_rate
from support.cli import Fake
from support.published import make_published


class OutOfMemoryError(RuntimeError):
    """As torch's."""


def foreign():
    """An error raised by a library's own code."""
    try:
        json.loads("{")
    except json.JSONDecodeError as error:
        return error


CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 7 GiB"
CPU = "[enforce fail at a.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 6442450944 bytes"
ERRORS = {
    "cuda": (OutOfMemoryError(CUDA), "(20.00 GiB more were asked for); choose a smaller --width and --height"),
    "cpu": (RuntimeError(CPU), "(6.0 GiB more were asked for); choose"),
    "python": (MemoryError(), "memory ran out while "),
    "numpy": (MemoryError("Unable to allocate 9.0 TiB for an array"), "(9.0 TiB more"),
    "torch": (RuntimeError("mat1 and mat2 shapes cannot be multiplied\nmore"), "says: mat1 and mat2 shapes cannot"),
    "disk": (OSError(errno.ENOSPC, "No space left", "x.mp4"), "x.mp4 failed: No space left; make room"),
    "full": (RuntimeError("I/O error: No space left on device (os error 28)"), "failed: No space left on device; make"),
    "json": (foreign(), "json says: Expecting property name"),
    "csv": (csv.Error("line contains NUL"), "says: line contains NUL (Error)"),
    "recursion": (RecursionError("maximum recursion depth exceeded"), "(RecursionError)"),
    "unicode": (UnicodeEncodeError("utf-8", "a\ud800", 1, 2, "surrogates"), "is no text in UTF-8"),
    "nul": (ValueError("embedded null byte"), "holds a NUL character"),
    "long": (TypeError("x" * 9999), "x ... (TypeError)"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_any_error_is_one_message(fake, capsys, monkeypatch, name):
    monkeypatch.delenv(failures.DEBUG, raising=False)
    fake.fails, says = ERRORS[name]
    assert main(["generate", "--prompt", "a", "--frames", "99"]) in (1, 2)
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said
    *_, kept, message = said.splitlines()
    assert kept.startswith("2 finished chunks are in") and message.startswith("helios generate: ")
    assert len(message) < 700


def test_the_traceback_is_there_for_who_asks(fake, capsys, monkeypatch):
    monkeypatch.setenv(failures.DEBUG, "1")
    fake.fails = TypeError("x")
    assert main(["generate", "--prompt", "a", "--frames", "99"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_message_never_stands_behind_a_bar(fake, capsys):
    """Whether the sampler fails or what takes its frames; and a run without a finished chunk leaves nothing."""

    class Broken(Fake):
        def generate(self, prompt, **settings):
            yield next(super().generate(prompt, **settings))
            raise ValueError("NaN")

    render.load = Broken().load
    assert main(["generate", "--prompt", "a"]) == 2
    assert capsys.readouterr().err.endswith("\nhelios generate: NaN\n") and os.listdir() == []

    def frames():
        yield np.zeros((1, 64, 64, 3), np.uint8)
        raise ValueError("no room")

    class Late(Fake):
        def generate(self, prompt, **settings):
            for event in super().generate(prompt, **settings):
                yield event._replace(frames=frames()) if hasattr(event, "frames") else event

    render.load = Late().load
    assert main(["generate", "--prompt", "a"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("\nhelios generate: no room\n") and "finished frames" not in said and os.listdir() == []


def test_a_bad_row_does_not_stop_the_others(fake, tmp_path, capsys):
    """Told before the work and at its end."""
    (tmp_path / "in").mkdir()
    rows = ["prompt,seed,output,image", "a,1,x.mp4,", "b,-3,,", ",4,,", "c,,x.mp4,", "d,5", "e,,,none.png", "f,,,"]
    rows += ["g,,in\\y.mp4,", "h,,file:z.mp4,"]
    (tmp_path / "p.csv").write_text("\n".join(rows))
    assert main(["generate", "--prompts-file", "p.csv", "--frames", "1"]) == 1
    printed = capsys.readouterr()
    assert printed.out.split() == ["x.mp4", "helios_0007.mp4", "in/y.mp4"]
    before, after = printed.err.split("6 of 9 failed:\n")
    for line, why in (
        (3, "seed '-3': wanted a whole number"),
        (4, "prompt: the prompt is empty"),
        (5, "lines 2 and 5 both write x.mp4"),
        (6, "wanted 4 fields"),
        (7, "no picture at none.png"),
        (10, "file name 'file:z.mp4' holds ':'"),
    ):
        assert f"line {line} (" in before and f"is left out: {why}" in before
        assert any(text.startswith(f"  line {line} (") and why in text for text in after.splitlines())


ABSURD = {
    ("--height", "1"): "multiples of 64",
    ("--height", "0"): "--height must be at least 1, got 0",
    ("--width", "0"): "--width must be at least 1, got 0",
    ("--width", "1" + "0" * 400): "--width must be at least 1 and at most 16384, got far more",
    ("--width", "32768"): "--width must be at least 1 and at most 16384, got 32768",
    ("--frames", "1" + "0" * 20): "--frames must be at least 1 and at most 1000000, got 1e+20",
    ("--cfg", "1e30"): "--cfg must be at least 0 and at most 100, got 1e+30",
    ("--cfg", "nan"): "--cfg must be at least 0",
    ("--fps", "0.0001"): "one frame in 1001 seconds is the least",
    ("--fps", "nan"): "fps must be above 0",
    ("--threads", "1000000"): "--threads must be at least 1 and at most",
    ("--steps", "2,2,9999999999"): "at most 1000",
    ("--start-noise", "0.1,0.2"): "name one of them, or leave it out",
    ("--lora-mode", "merge"): "says how a --lora goes in",
    ("--control-strength", "nan"): "--control-strength must be at least 0",
    ("--control-chunks", "5-2"): "the last is before the first",
    ("--control-policy", "match"): "--control-policy says how a --control clip is used",
    ("--control", "gone.mp4"): "no file at gone.mp4",
    ("--boundary-frames", "3"): "choose one, such as --boundary match",
    ("--negative", "a\ud800"): "is no text in UTF-8",
}


@pytest.mark.parametrize("option", ABSURD)
def test_absurd_numbers_are_refused_before_anything_loads(tmp_path, monkeypatch, capsys, option):
    """By the real model too, whose sizes are asked after its configuration is read."""
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--prompt", "a", *option]) == 2
    said = capsys.readouterr().err
    assert ABSURD[option] in said and said.count("helios generate") == 1 and os.listdir() == []


def test_the_smallest_rate_is_one_that_a_file_has():
    assert frame_rate(1 / 1001).denominator == 1001 and frame_rate(1000) == 1000
    with pytest.raises(ValueError, match="fps must be above 0"):
        frame_rate(1 / 3000)


@pytest.mark.parametrize("length", [200, 239, 247, 251])
def test_long_names_are_written(fake, tmp_path, length):
    """What lies beside a file on the way is named shorter."""
    name = "x" * length + ".mp4"
    assert main(["generate", "--prompt", "a", "--frames", "1", "-o", name]) == 0 and os.listdir() == [name]
    write(tmp_path / ("\u3042" * 83 + ".txt"), "text")
    assert len(os.fsencode(free_name(tmp_path / name).name)) <= 255
    assert len(os.fsencode(beside(tmp_path / name, "_chunks").name)) <= 255


@pytest.mark.parametrize("option", ["model", "vae", "text_encoder", "lora", "lora_companion", "save_history"])
def test_outputs_are_apart_from_all_that_is_read(fake, tmp_path, capsys, option):
    """By another name of the file."""
    (tmp_path / "models" / "vae").mkdir(parents=True)
    read = tmp_path / "models" / "vae" / "read.safetensors" if option == "vae" else tmp_path / "read.safetensors"
    read.write_bytes(b"mine")
    os.link(read, tmp_path / "out.mp4")
    args = cli.parser().parse_args(
        ["generate", "--prompt", "a", f"--{option.replace('_', '-')}", read.name + (":0.5" if option == "lora" else "")]
    )
    with pytest.raises(ValueError, match=f"out.mp4 is what --{option.replace('_', '-')} reads; name another output"):
        outputs.check_apart(tmp_path / "out.mp4", args)
    outputs.check_apart(tmp_path / "other.mp4", args)


def test_a_training_never_replaces_what_it_began_with(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    vae = next((load().checkpoint.sources["vae"].files[0].parent).glob("*.safetensors"))
    (tmp_path / "vae.safetensors").write_bytes(vae.read_bytes())
    assert main(["train", "ve", "--data", "drawn", "--vae", "vae.safetensors", "-o", "vae.safetensors"]) == 2
    assert "vae.safetensors is what --vae reads" in capsys.readouterr().err
    for line in (
        ["ve", "--data", "nosuch"],
        ["ve", "--data", "drawn", "--size", "7"],
        ["ul-decoder", "--data", "nosuch"],
    ):
        assert main(["train", *line]) == 2
    assert os.listdir() == ["vae.safetensors"] and read_header(tmp_path / "vae.safetensors")


def test_a_setting_of_bench_is_named(capsys):
    for text, says in (
        ("cfg=x", "'cfg=x': wanted a number"),
        ("zero_steps=1.5", "wanted a whole number"),
        ("cfg=1e30", "cfg 1e+30"),
    ):
        assert main(["bench", "tiny", "--setting", text]) == 2
        said = capsys.readouterr().err
        assert f"--setting '{text}'" in said and says in said
    assert bench.parse_setting("cfg=2", 3) == {"cfg": 2.0}


def test_convert_shows_no_bar_for_what_is_refused(tmp_path, capsys):
    assert main(["convert", "nowhere", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("helios convert: no checkpoint named 'nowhere'")


def test_one_broken_folder_does_not_stop_the_doctor(tmp_path, capsys):
    folder = make_published(tmp_path / "a")
    good, vae = ((folder / part / "config.json").read_text() for part in ("transformer", "vae"))
    for text in (
        "[" * 5000,
        '{"num_layers": 1000000000000000000}',
        '{"patch_size": null}',
        "null",
        "\ufeff{}",
        '{"eps": "x"}',
    ):
        (folder / "transformer" / "config.json").write_text(text, encoding="utf-8")
        assert doctor.print_checkpoint("a", folder) is False
        assert "a: cannot be used: " in capsys.readouterr().out
    (folder / "transformer" / "config.json").write_text(good)
    mean, std = '"latents_mean": [NaN' + ", 0" * 15 + "]}", '"latents_std": [0' + ", 1" * 15 + "]}"
    for file, text in (
        ("vae/config.json", vae.replace("}", f", {mean}")),
        ("vae/config.json", vae.replace("}", f", {std}")),
        ("generation_config.json", '{"cfg": 1e30}'),
        ("generation_config.json", '{"width": 1}'),
    ):
        (folder / "vae" / "config.json").write_text(vae)
        (folder / file).write_text(text)
        assert doctor.print_checkpoint("a", folder) is False
        said = capsys.readouterr().out
        assert "a: cannot be used: " in said and failures.DEBUG not in said and " says: " not in said
    for file in ("model_index.json", "vae/config.json", "scheduler/scheduler_config.json", "text_encoder/config.json"):
        make_published(tmp_path / file.replace("/", "_"))
        (tmp_path / file.replace("/", "_") / file).write_text("[1]")
        assert doctor.print_checkpoint("b", tmp_path / file.replace("/", "_")) is False
    assert "Traceback" not in capsys.readouterr().out


@pytest.mark.parametrize("library", ["torch", "mlx"])
def test_frames_of_nan_are_an_error(library):
    helios = load(backend=library)
    latent = torch.zeros(1, helios.config.vae.z_dim, 1, 4, 4)
    latent[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="the decoded frames hold NaN or infinity: check that the VAE"):
        helios.decode(helios.backend.array(latent.numpy()))


def test_what_lacks_its_encoder_is_said_before_the_work(tmp_path, monkeypatch, capsys):
    import av

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(av, "codecs_available", {"h264"})
    assert main(["generate", "--prompt", "a"]) == 2
    assert "has no libx264; pip install --force-reinstall av" in capsys.readouterr().err and os.listdir() == []


def test_a_pack_that_is_a_link_knows_its_own_errors(tmp_path):
    """They were taken for a library's: exit code 1, and "says"."""
    (tmp_path / "helios_video").symlink_to(Path(pack.__file__).parent, target_is_directory=True)
    command = [sys.executable, "-m", "helios_video.helios_core.cli", "run", "none.json"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 2 and run.stderr == "helios run: no workflow file at none.json\n"
