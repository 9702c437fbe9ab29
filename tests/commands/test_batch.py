"""Several videos: at once as a batch, and one after another from a file of prompts with one load. Named: D1, D11."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import render as command
from helios_video.helios_core.generate import ChunkDone
from helios_video.helios_core.join import video
from helios_video.helios_core.noise import MAX_SEED, Noise, batch_noise
from helios_video.helios_core.text import Embedding
from helios_video.nodes import sockets
from support.chunks import whole
from support.cli import Fake
from support.nodes import call

SHAPE = (3, 2, 1, 4, 4)


def test_every_element_draws_what_its_seed_draws_alone():
    noise = batch_noise(MAX_SEED - 1, 3).normal(SHAPE, chunk=2, stage=1, use="block")
    for element, seed in zip(noise, (MAX_SEED - 1, MAX_SEED, 0), strict=True):
        assert np.array_equal(element, Noise(seed).normal((1, *SHAPE[1:]), chunk=2, stage=1, use="block")[0])
    chosen = batch_noise([5, 9, 5], 3).normal(SHAPE, chunk=0)
    assert np.array_equal(chosen[0], chosen[2]) and not np.array_equal(chosen[0], chosen[1])
    assert np.array_equal(batch_noise(7, 1).normal((1, *SHAPE[1:]), chunk=0), Noise(7).normal((1, *SHAPE[1:]), chunk=0))


@pytest.mark.parametrize(
    ("seed", "says"),
    [([1, 2], "2 seeds for a batch of 3"), (-1, "seed -1"), ([0, 1, 2**64], "seed 18446744073709551616")],
)
def test_bad_seeds_of_a_batch(seed, says):
    with pytest.raises(ValueError, match=says):
        batch_noise(seed, 3)
    with pytest.raises(ValueError, match="for 2 seeds; wanted one seed per element"):
        batch_noise(1, 2).normal(SHAPE, chunk=0)


@pytest.fixture(scope="module")
def helios():
    return load(weight_dtype="fp32")  # bf16 rounds differently in a batch


def latents(helios, texts, seed, *, chunks=2, batch=1, **options):
    history, made = helios.history(64, 64, batch=batch), []
    for _ in range(chunks):
        *_, step = helios.sample(history, texts, seed=seed, steps=(1, 1, 1), **options)
        history = history.append(step.latent)
        made.append(step.latent)
    return made


def test_d1_element_i_of_a_batch_is_the_single_run_of_its_seed(helios):
    """Two prompts of different lengths, two chunks, guidance on; each with the noise of its own seed."""
    prompts = ["a red circle moving left", "blue square"]
    together = latents(helios, helios.text(prompts), 11, batch=2)
    for i, prompt in enumerate(prompts):
        for chunk, alone in zip(together, latents(helios, helios.text(prompt), 11 + i), strict=True):
            assert chunk.shape[0] == 2
            assert float((chunk[i] - alone[0]).norm() / alone.norm()) < 1e-5
    assert float((together[0][0] - together[0][1]).norm() / together[0][0].norm()) > 0.1


def test_one_prompt_and_chosen_seeds_for_a_batch(helios):
    (chunk,) = latents(helios, helios.text("a red circle"), [4, 9, 4], chunks=1, batch=3)
    assert torch.equal(chunk[0], chunk[2]) and not torch.equal(chunk[0], chunk[1])
    with pytest.raises(ValueError, match="2 seeds for a batch of 3"):
        helios.sample(helios.history(64, 64, batch=3), helios.text("a"), seed=[1, 2])


def test_a_batch_through_generate(helios):
    events = helios.generate("a red circle", history=helios.history(64, 64, batch=2), frames=33, steps=(1, 1, 1))
    (done,) = [event for event in whole(events) if isinstance(event, ChunkDone)]
    assert done.latent.shape[0] == 2 and done.frames.shape == (33, 64, 64, 3)
    assert np.array_equal(helios.decode(done.latent[:1]), done.frames)
    assert not np.array_equal(helios.decode(done.latent[1:]), done.frames)


def test_a_history_repeats_only_once(helios):
    history = helios.history(64, 64).append(torch.ones(1, helios.config.vae.z_dim, 9, 8, 8)).repeat(2)
    assert history.shape[0] == history.anchor.shape[0] == 2 and history.chunk == 1 and history.repeat(1) is history
    for bad, n in ((history, 2), (helios.history(64, 64), 0)):
        with pytest.raises(ValueError, match=f"batch {n}: wanted 1 or more, of a history of one element"):
            bad.repeat(n)


class Films(Fake):
    """Remembers what it was asked; a prompt in `broken` raises what is there, in its second chunk."""

    def __init__(self):
        super().__init__()
        self.loads, self.ahead, self.films, self.broken = 0, [], [], {}

    def load(self, path, **options):
        self.loads += 1
        return super().load(path, **options)

    def encode_ahead(self, prompts, negatives=(), *, cfg=0.0):
        self.ahead.append((list(prompts), list(negatives), cfg))

    def generate(self, prompt, **settings):
        self.films.append({"prompt": prompt, **settings})
        for event in super().generate(prompt, **settings):
            if getattr(event, "chunk", 0) == 1 and prompt in self.broken:
                raise self.broken[prompt]
            yield event


@pytest.fixture
def films(monkeypatch, tmp_path):
    made = Films()
    monkeypatch.setattr(command, "load", made.load)
    monkeypatch.chdir(tmp_path)
    return made


def batch(*options):
    return main(["generate", "--prompts-file", *options])


def test_a_prompt_per_line(films, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("# shapes\n  a red circle \n\na blue square, # and 16:9; no comment\n")
    assert batch("p.txt", "--frames", "40", "--seed", "5", "-o", "out.mp4") == 0
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["out_0001.mp4", "out_0002.mp4"]
    assert [f["prompt"] for f in films.films] == ["a red circle", "a blue square, # and 16:9; no comment"]
    assert {f["seed"] for f in films.films} == {5} and films.loads == 1
    assert films.ahead == [(["a red circle", "a blue square, # and 16:9; no comment"], [""], 0.0)]
    assert video.probe("out_0002.mp4").frames == 40
    printed = capsys.readouterr()
    assert printed.out.split() == ["out_0001.mp4", "out_0002.mp4"] and "[2/2] a blue square" in printed.err
    kept = video.read_metadata("out_0001.mp4")["helios"]
    assert (kept["prompt"], kept["seed"], kept["frames"]) == ("a red circle", 5, 40)


def test_a_table_with_settings_of_each(films, tmp_path):
    table = 'prompt, negative, seed, frames, output\n"a, b", grey, 7, 20, one.mp4\nc,,,,\nd,,18446744073709551615,,\n'
    (tmp_path / "p.csv").write_text("\ufeff" + table)
    assert batch("p.csv", "--frames", "33", "-o", "out.mp4", "--negative", "blur") == 0
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["one.mp4", "out_0002.mp4", "out_0003.mp4"]
    asked = [(f["prompt"], f["negative"], f["seed"], f["chunks"]) for f in films.films]
    assert asked == [("a, b", "grey", 7, 1), ("c", "blur", 0, 1), ("d", "blur", 2**64 - 1, 1)]
    assert video.probe("one.mp4").frames == 20
    assert films.ahead[0][1] == ["grey", "blur"]


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (ValueError("NaN in it"), "NaN in it"),
        (RuntimeError("CUDA out of memory"), "memory ran out while "),
        (OSError(5, "bad disk"), "failed: bad disk"),
        (TypeError("'NoneType' object is not iterable\nmore"), "says: 'NoneType' object is not iterable (TypeError)"),
        (KeyError("x"), "says: 'x' (KeyError)"),
    ],
)
def test_d11_a_prompt_that_fails_does_not_end_the_batch(films, tmp_path, capsys, failure, says):
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    films.broken["b"] = failure
    assert batch("p.txt", "-o", "out.mp4", "--frames", "66") == 1
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["out_0001.mp4", "out_0003.mp4"]
    said = capsys.readouterr().err
    assert "1 of 3 failed:" in said and said.splitlines()[-1].startswith("  line 2 (b): ")
    assert says in said.splitlines()[-1] and "Traceback" not in said
    assert "1 finished chunk is in out_0002_chunks, a playable file each; go on with: helios resume" in said
    films.broken.clear()
    assert batch("p.txt", "-o", "out.mp4", "--frames", "66") == 0  # and the same command makes what is missing
    assert [f["prompt"] for f in films.films] == ["a", "b", "c", "b"]


def test_ctrl_c_ends_the_batch_and_the_next_run_goes_on(films, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    films.broken["b"] = KeyboardInterrupt()
    assert batch("p.txt", "-o", "out.mp4", "--frames", "66") == 130
    assert [f["prompt"] for f in films.films] == ["a", "b"]
    films.broken.clear()
    capsys.readouterr()
    assert batch("p.txt", "-o", "out.mp4", "--frames", "66") == 0
    printed = capsys.readouterr()
    assert printed.out.split() == ["out_0002.mp4", "out_0003.mp4"]
    assert "line 1: out_0001.mp4 is there already\n" in printed.err
    assert batch("p.txt", "-o", "out.mp4") == 0 and films.loads == 2, "nothing to do, nothing loaded"
    assert batch("p.txt", "-o", "out.mp4", "--overwrite", "--frames", "1") == 0
    assert [f["prompt"] for f in films.films[-3:]] == ["a", "b", "c"] and video.probe("out_0001.mp4").frames == 1


def test_a_finished_file_of_another_prompt_is_left_alone_and_said(films, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a\n")
    assert batch("p.txt", "--frames", "1") == 0
    (tmp_path / "p.txt").write_text("b\n")
    assert batch("p.txt", "--frames", "1") == 0
    assert "helios_0001.mp4 is there already, made from another prompt; --overwrite" in capsys.readouterr().err
    assert len(films.films) == 1


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.txt", "# nothing\n\n", "p.txt holds no prompt"),
        ("p.csv", "prompt,seed\n", "p.csv holds no prompt"),
        ("p.csv", "text,seed\na,1\n", "p.csv has the columns text, seed; wanted prompt, and any of negative"),
        ("p.csv", "prompt,sede\na,1\n", "p.csv has the columns prompt, sede"),
        ("p.csv", "prompt,seed\nb, c,2\n", "p.csv, line 2: wanted 2 fields; put quotes around commas"),
        ("p.csv", "prompt,seed,seed\na,1,2\n", "p.csv has a column twice: prompt, seed, seed"),
        ("p.csv", "prompt,output\na,../b.mp4\n", "p.csv, line 2: file name '../b.mp4': wanted one inside ."),
        ("p.csv", "prompt\n" + "a" * 200_000 + "\n", "field larger than field limit"),
        ("p.csv", "prompt,seed\na\n", "p.csv, line 2: wanted 2 fields"),
        ("p.csv", "prompt,seed\n,3\n", "p.csv, line 2: prompt: the prompt is empty"),
        ("p.csv", "prompt,seed\na,-3\n", "p.csv, line 2: seed '-3': wanted a whole number"),
        ("p.csv", "prompt,seed\na,18446744073709551616\n", "p.csv, line 2: seed 18446744073709551616"),
        ("p.csv", "prompt,frames\na,0\n", "p.csv, line 2: --frames must be at least 1, got 0"),
        ("p.csv", "prompt,output\na,b.avi\n", "p.csv, line 2: the output must end in .mp4"),
        ("p.csv", "prompt,output\na,none/b.mp4\n", "not an existing folder"),
        ("p.csv", "prompt,image\na,none.png\n", "p.csv, line 2: no picture at none.png"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_loaded(films, tmp_path, capsys, name, text, says):
    (tmp_path / name).write_text(text)
    assert batch(name) == 2
    printed = capsys.readouterr()
    assert says in printed.err and printed.err.count("\n") == 1
    assert films.loads == 0 and [p.name for p in tmp_path.iterdir()] == [name]


def test_files_that_cannot_be_read(films, tmp_path, capsys):
    assert batch("none.txt") == 2 and "no file of prompts at none.txt" in capsys.readouterr().err
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00a")
    assert batch("p.txt") == 2 and "p.txt is not UTF-8 text" in capsys.readouterr().err


def test_one_of_prompt_schedule_and_file(films, capsys):
    for options in ([], ["--prompt", "a", "--prompts-at", "0: a"], ["--prompt", "a", "--prompts-file", "p.txt"]):
        with pytest.raises(SystemExit) as stop:
            main(["generate", *options])
        assert stop.value.code == 2 and "--prompt" in capsys.readouterr().err


def test_a_schedule_is_read_only_where_it_is_asked_for(films, capsys):
    assert main(["generate", "--prompts-at", "0: a; 1 (2): b", "--frames", "99"]) == 0
    assert films.films[0]["prompt"].prompts == ("a", "b")
    assert json.loads(json.dumps(video.read_metadata("helios.mp4")))["helios"]["prompts_at"] == "0: a; 1 (2): b"
    assert main(["generate", "--prompt", "0: a; 1 (2): b", "--frames", "1"]) == 0
    assert films.films[1]["prompt"] == "0: a; 1 (2): b"
    assert main(["generate", "--prompts-at", "a red circle"]) == 2
    assert "does not begin with a chunk; wanted '0: a red circle" in capsys.readouterr().err


def test_the_prompt_cache_has_an_off_switch(films):
    assert main(["generate", "--prompt", "a", "--frames", "1"]) == 0 and "cache_folder" not in films.options
    assert main(["generate", "--prompt", "a", "--frames", "1", "--no-prompt-cache"]) == 0
    assert films.options["cache_folder"] is None


def test_real_videos_with_one_load(tmp_path, monkeypatch):
    """Two prompts, and one of them again from a picture that lies beside the table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    av.VideoFrame.from_ndarray(np.full((64, 64, 3), 200, np.uint8), format="rgb24").to_image().save("in/grey.png")
    rows = ["prompt,seed,image", "a red circle,1,", "a blue square,2,", "a blue square,2,grey.png"]
    (tmp_path / "in" / "p.csv").write_text("\n".join(rows))
    loads, real = [], command.load
    monkeypatch.setattr(command, "load", lambda *a, **k: loads.append(1) or real(*a, **k))
    assert batch("in/p.csv", "--frames", "20", "--steps", "1,1,1", "--width", "64", "--height", "64") == 0
    shots = [video.read_frames(f"helios_000{i}.mp4").astype(int) for i in (1, 2, 3)]
    assert [len(frames) for frames in shots] == [20] * 3 and len(loads) == 1
    assert np.abs(shots[0] - shots[1]).mean() > 5 and np.abs(shots[2] - shots[1]).mean() > 5


def test_a_batch_in_the_graph(fake_helios):
    """Two prompts at once: noise per seed, a latent of two videos, and Chunk Concat says how to pick one."""
    memory = call("HistoryMemory", model=fake_helios, batch_size=2)[0]
    noise = call("HeliosNoise", history=memory, seed=5)[0]["samples"]
    alone = [call("HeliosNoise", history=call("HistoryMemory", model=fake_helios)[0], seed=s)[0] for s in (5, 6)]
    assert torch.equal(noise, torch.cat([latent["samples"] for latent in alone]))
    text = Embedding.of(torch.cat([fake_helios.text(p).padded for p in ("a b", "c d e")]))
    positive = sockets.conditioning(text, "a b\nc d e")
    latent, later = call("DMDPyramidSample", model=fake_helios, positive=positive, history=memory, seed=5)
    assert latent["samples"].shape[0] == later.history.shape[0] == 2
    with pytest.raises(ValueError, match="batch of 2; pick with Latent From Batch"):
        call("ChunkConcat", latent=latent, decoder=sockets.VAESocket(fake_helios))
