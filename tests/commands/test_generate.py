"""`helios generate`, with a pipeline that draws instead of thinking: messages, exit codes, chunks, metadata."""

import signal
import subprocess
import sys

import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import Terminal
from helios_video.helios_core.join import video


def test_generate_writes_one_mp4_of_the_length_asked(fake, tmp_path, capsys):
    assert main(["generate", "--prompt", "a red circle", "--frames", "100", "--seed", "7", "-o", "out.mp4"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    info = video.probe(tmp_path / "out.mp4")
    assert (info.frames, info.fps, info.width, info.height) == (100, 24, 64, 64)
    printed = capsys.readouterr()
    assert printed.out == "out.mp4\n"
    assert "chunk 1/4" in printed.err and "chunk 4/4" in printed.err and "2/2" in printed.err
    assert video.read_metadata(tmp_path / "out.mp4")["helios"]["seed"] == 7


def test_d10_memory_options_reach_the_pipeline_and_the_need_is_said_first(fake, capsys):
    given = ["--weight-dtype", "int4", "--offload", "blocks", "--vae-dtype", "bf16", "--vae-tiling", "on"]
    given += ["--attention", "math", "--products", "widened"]
    assert main(["generate", "--prompt", "a", "--frames", "1", "--width", "64", "--height", "32", *given]) == 0
    wanted = {"weight_dtype": "int4", "offload": "blocks", "vae_dtype": "bf16", "vae_tiling": "on"}
    wanted |= {"attention": "math", "products": "widened", "compile": "auto"}
    assert isinstance(fake.options.pop("host"), Terminal)
    assert fake.options == {"backend": "auto", "text_encoder": None, "vae": None, **wanted}
    error = capsys.readouterr().err
    assert error.index("needed for 64x32") < error.index("chunk 1/1")


def test_generate_passes_what_was_asked_and_leaves_the_rest_to_the_checkpoint(fake):
    assert main(["generate", "--prompt", "a", "--frames", "1"]) == 0
    open_ended = {"negative": None, "width": 64, "height": 64, "steps": None, "cfg": 0.0, "solver": "auto"}
    open_ended |= {"guidance": "auto", "zero_steps": None, "shift_tokens": "before upsample", "shift_clamp": False}
    assert callable(fake.asked.pop("picture")), "reads the pictures that a score names"
    assert fake.asked == {"prompt": "a", "chunks": 1, "seed": 0, **open_ended} and fake.path == "helios-tiny"
    options = "--width 128 --height 96 --steps 3,2,1 --cfg 1.5 --negative blur --solver euler --fps 16".split()
    assert main(["generate", "--prompt", "a", "--frames", "1", "--overwrite", *options]) == 0
    assert fake.asked["steps"] == (3, 2, 1) and (fake.asked["width"], fake.asked["height"]) == (128, 96)
    assert (fake.asked["cfg"], fake.asked["negative"], fake.asked["solver"]) == (1.5, "blur", "euler")
    assert video.probe("helios.mp4").fps == 16
    options = "--solver unipc --guidance cfg_zero_star --zero-steps 0 --shift-tokens after --shift-clamp".split()
    assert main(["generate", "--prompt", "a", "--frames", "1", "--overwrite", *options]) == 0
    assert (fake.asked["solver"], fake.asked["guidance"], fake.asked["zero_steps"]) == ("unipc", "cfg_zero_star", 0)
    assert (fake.asked["shift_tokens"], fake.asked["shift_clamp"]) == ("after upsample", True)
    options = "--boundary match --boundary-frames 4 --drop-first-frame".split()
    assert main(["generate", "--prompt", "a", "--frames", "66", "--overwrite", *options]) == 0
    assert "boundary" not in fake.asked and fake.asked["chunks"] == 3, "only the join knows policies"
    assert video.probe("helios.mp4").frames == 66
    assert video.read_metadata("helios.mp4")["helios"]["boundary"] == "match"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--prompt", "  "], "--prompt: the prompt is empty"),
        (["--prompt", "a", "--frames", "0"], "--frames must be at least 1, got 0"),
        (["--prompt", "a", "--fps", "0"], "fps must be above 0"),
        (["--prompt", "a", "--boundary-frames", "0"], "--boundary-frames must be at least 1, got 0"),
        (["--prompt", "a", "--threads", "0"], "--threads must be at least 1"),
        (["--prompt", "a", "-o", "none/out.mp4"], "not an existing folder"),
        (["--prompt", "a", "-o", "out.avi"], "must end in .mp4"),
        (["--prompt", "a", "--model", "nowhere"], "no checkpoint named 'nowhere'"),
        (["--prompt", "a", "--steps", "2,x"], "steps '2,x'"),
        (["--prompt", "a", "--steps", ""], "steps ''"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(fake, tmp_path, capsys, options, says):
    assert main(["generate", *options]) == 2
    printed = capsys.readouterr()
    assert says in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert fake.asked is None and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "code"), [(KeyboardInterrupt(), 130), (ValueError("NaN in chunk 2"), 2), (OSError(28, "disk full"), 1)]
)
def test_a_stopped_run_keeps_its_chunks_and_says_where(fake, tmp_path, capsys, failure, code):
    fake.fails = failure
    assert main(["generate", "--prompt", "a", "-o", "out.mp4"]) == code
    kept = "2 finished chunks are in out_chunks, a playable file each; go on with: helios resume out_chunks"
    assert kept in capsys.readouterr().err
    assert [len(video.read_frames(p)) for p in sorted((tmp_path / "out_chunks").glob("*.mp4"))] == [33, 33]
    assert not (tmp_path / "out.mp4").exists()
    fake.fails = None
    assert main(["generate", "--prompt", "a", "-o", "out.mp4"]) == 0
    assert "going on in out_chunks: 2 finished chunks are there" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4"] and video.probe("out.mp4").frames == 132


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import render
from support.cli import Fake
class Slow(Fake):
    def generate(self, prompt, **settings):
        for event in super().generate(prompt, **settings):
            if getattr(event, "index", 0) == 1 and not hasattr(event, "frames") and event.chunk == 2:
                while not (Path(sys.argv[2]).parent / "out_chunks" / "chunk_0001.mp4").is_file():
                    time.sleep(0.01)  # it is encoded meanwhile
                print("busy", flush=True)
                time.sleep(60)
            yield event
render.load = Slow().load
main(["generate", "--prompt", "a", "-o", sys.argv[2]])
"""


def test_a_killed_run_keeps_its_chunks(tmp_path, request):
    arguments = [sys.executable, "-c", KILLED, str(request.config.rootpath), str(tmp_path / "out.mp4")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "busy\n"
    process.kill()
    assert process.wait() in (-getattr(signal, "SIGKILL", 9), 1)
    assert [len(video.read_frames(p)) for p in sorted((tmp_path / "out_chunks").glob("*.mp4"))] == [33, 33]
