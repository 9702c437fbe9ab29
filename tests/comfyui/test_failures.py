"""What goes wrong around finished chunks in a real ComfyUI: files that are gone, disks that fail. It goes on."""

from __future__ import annotations

import shutil

import pytest
from helios_video.helios_core.join import video
from support.comfyui import NEEDED, messages, saved, serving, with_value
from support.probed import PROBES, computed, long_video, number, ran, small, succeeds

pytestmark = NEEDED


@pytest.fixture(scope="module", params=[(), ("--cache-classic",)], ids=["default", "classic"])
def server(request, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("comfyui"), PROBES, request.param) as server:
        yield server


@pytest.fixture
def prompt(request, server):
    """A video of two chunks that is in the store and perhaps in ComfyUI's cache."""
    seed = sum(map(ord, request.node.name))
    prompt = with_value(small(long_video(chunks=2)), "PrimitiveInt", value=seed)
    succeeds(server, prompt)
    ran(server)
    return prompt


def longer(prompt, chunks: int = 3) -> dict:
    prompt[number(prompt, "HeliosLoopStart")]["inputs"]["chunks"] = chunks
    return prompt


def newest(server):
    return max((server.base / "temp" / "helios").iterdir(), key=lambda folder: folder.stat().st_mtime)


def fails(server, prompt) -> tuple[str, str]:
    """The class of the node an error is shown on, and its words."""
    (error,) = messages(server.run(prompt), "execution_error")
    return error["node_type"], error["exception_message"]


def test_an_emptied_temp_folder_is_filled_again(server, prompt):
    shutil.rmtree(server.base / "temp" / "helios")
    entry = succeeds(server, longer(prompt))
    assert computed(ran(server)) == ["sample2", "decode2"] and video.probe(saved(server, entry)).frames == 99
    shutil.rmtree(server.base / "temp" / "helios")
    entry = succeeds(server, with_value(prompt, "SaveVideo", filename_prefix="again"))
    assert computed(ran(server)) == [] and video.probe(saved(server, entry)).frames == 99


def test_a_deleted_segment_comes_back(server, prompt):
    next(newest(server).glob("chunk_0000.mp4")).unlink()
    entry = succeeds(server, longer(prompt))
    assert computed(ran(server)) == ["sample2", "decode2"] and video.probe(saved(server, entry)).frames == 99


def test_what_is_nowhere_any_more_is_made_again_or_said(server, prompt):
    """ComfyUI may still hold the handle of a video whose files are gone for good; it is told how to let go."""
    for folder in ("temp/helios", "user/helios"):
        shutil.rmtree(server.base / folder)
    entry = server.run(longer(prompt))
    if error := messages(entry, "execution_error"):
        assert error[0]["node_type"] == "ChunkConcat" and "Execution Cache" in error[0]["exception_message"]
        server.post("/free", {"unload_models": True, "free_memory": True})
        entry = succeeds(server, prompt)
    assert video.probe(saved(server, entry)).frames == 99


@pytest.mark.parametrize(("where", "node"), [("segment", "ChunkConcat"), ("join", "SaveVideo")])
def test_a_full_disk_is_an_error_of_the_node_and_the_next_prompt_runs(server, prompt, where, node):
    flag = server.base / "full"
    flag.write_text(where)
    assert fails(server, longer(prompt))[0] == node
    flag.unlink()
    ran(server)
    entry = succeeds(server, prompt)
    assert "sample2" not in ran(server) and video.probe(saved(server, entry)).frames == 99


def test_a_place_that_takes_no_files_is_an_error_and_a_store_that_takes_none_is_not(server, prompt):
    temp, store = server.base / "temp" / "helios", server.base / "user" / "helios"
    for folder in (temp, store):
        shutil.rmtree(folder)
        folder.write_text("no folder")
    with_value(prompt, "PrimitiveInt", value=77)
    kind, words = fails(server, prompt)
    assert kind == "ChunkConcat" and "cannot make the folder" in words
    temp.unlink()
    succeeds(server, prompt)
    assert "finished work is not kept" in (server.base / "log.txt").read_text()
    store.unlink()
