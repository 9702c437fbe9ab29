"""Finished chunks taken from disk: with the same content of all that counts, and with nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import helios_video.helios_core as core
import pytest
import torch
from helios_video.nodes import engine_digest, sockets
from support.nodes import call

TINY = Path(core.__file__).parent / "assets/helios-tiny"


@pytest.fixture(autouse=True)
def kept_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(TINY, tmp_path / "model", copy_function=shutil.copy2))


def run(folder, monkeypatch, *, text="a red circle", negative=None, **options):
    """A chunk of one step a stage in a pipeline that has just been loaded, and how many were sampled for it."""
    helios, sampled = core.load(folder, backend="torch"), []
    real = helios.sample
    monkeypatch.setattr(helios, "sample", lambda *a, **k: sampled.append(1) or real(*a, **k))
    words = {"positive": call("T5Encode", text_encoder=helios.text, text=text)[0]}
    if negative is not None:
        words["negative"] = call("T5Encode", text_encoder=helios.text, text=negative)[0]
    history = call("HistoryMemory", model=helios)[0]
    options = {"steps": "1,1,1", "boost_first_chunk": False, **options}
    latent, later = call("DMDPyramidSample", model=helios, history=history, **words, **options)
    return latent["samples"], later.history, len(sampled)


def test_a_chunk_that_was_finished_is_not_sampled_again(folder, monkeypatch):
    first, later, once = run(folder, monkeypatch)
    second, again, never = run(folder, monkeypatch)
    assert (once, never) == (1, 0) and torch.equal(first, second)
    assert torch.equal(torch.as_tensor(later.window), torch.as_tensor(again.window))


@pytest.mark.parametrize(
    "change", [{"seed": 7}, {"text": "a blue square"}, {"steps": "2,1,1"}, {"cfg": 2.0, "negative": "grey"}], ids=str
)
def test_another_input_is_sampled(folder, monkeypatch, change):
    first = run(folder, monkeypatch)[0]
    second, _, sampled = run(folder, monkeypatch, **change)
    assert sampled == 1 and not torch.equal(first, second)


def test_another_configuration_of_the_same_weights_is_sampled(folder, monkeypatch):
    first = run(folder, monkeypatch)[0]
    file = folder / "scheduler/scheduler_config.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps({**found, "gamma": found.get("gamma", 1 / 3) / 2}))
    second, _, sampled = run(folder, monkeypatch)
    assert sampled == 1 and not torch.equal(first, second)


def test_nothing_is_kept_where_it_is_off(folder, monkeypatch):
    monkeypatch.setenv("HELIOS_CACHE", "off")
    assert [run(folder, monkeypatch)[2] for _ in range(2)] == [1, 1]


def test_an_open_negative_counts_as_what_encodes_it(folder, monkeypatch):
    """The prompt's conditioning may come from elsewhere; the empty one is the checkpoint's own encoder's."""
    helios, sampled = core.load(folder, backend="torch"), []
    real = helios.sample
    monkeypatch.setattr(helios, "sample", lambda *a, **k: sampled.append(1) or real(*a, **k))
    words = call("T5Encode", text_encoder=helios.text, text="a red circle")[0]
    given = {"model": helios, "positive": words, "steps": "1,1,1", "boost_first_chunk": False, "cfg": 2.0}
    for key in ("one encoder", "one encoder", "another"):
        helios.embeddings.key = key
        call("DMDPyramidSample", history=call("HistoryMemory", model=helios)[0], **given)
    assert len(sampled) == 2


def test_a_clip_whose_files_are_gone_is_put_back_or_refused(tmp_path, temp, folder, monkeypatch):
    helios = core.load(folder, backend="torch")
    latent = {"samples": torch.as_tensor(run(folder, monkeypatch)[0])}
    given = {"latent": latent, "decoder": sockets.VAESocket(helios)}
    clip, film = call("ChunkConcat", **given)
    shutil.rmtree(clip.folder)
    longer, _ = call("ChunkConcat", clip=clip, **given)
    assert longer.num_frames == 66 and not longer.missing
    shutil.rmtree(clip.folder)
    assert Path(film.get_stream_source()).is_file(), "whoever wants the video gets it"
    shutil.rmtree(clip.folder)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(ValueError, match="no longer holds.*Execution Cache"):
        call("ChunkConcat", clip=clip, **given)
    with pytest.raises(ValueError, match="no longer holds"):
        film.get_stream_source()


def test_a_file_that_is_written_anew_during_a_run_is_another_models(folder):
    """What the run computes with is what it loaded: kept under the new file's name it would come up for that one."""
    helios = core.load(folder, backend="torch")
    before = helios.parts.identity, helios.parts.vae_identity
    for file in folder.rglob("*.safetensors"):
        os.utime(file, (1, 1))
    assert (helios.parts.identity, helios.parts.vae_identity) == before
    again = core.load(folder, backend="torch").parts
    assert again.identity != before[0] and again.vae_identity != before[1]


def test_what_takes_the_place_of_a_models_objects_counts():
    """A LoRA that brings gains of norms alone leaves ComfyUI's own name of the patches as it was."""

    def told(gain=None):
        objects = {} if gain is None else {"norm.weight": torch.nn.Parameter(torch.full((3,), gain))}
        model = SimpleNamespace(patches={}, weight_wrapper_patches={}, patches_uuid="one", object_patches=objects)
        return engine_digest.patches_digest(model)

    assert told() is None and told(1.0) == told(1.0) and len({told(), told(1.0), told(2.0)}) == 3
