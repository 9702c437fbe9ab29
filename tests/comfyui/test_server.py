"""The pack in a real ComfyUI, on the CPU, with helios-tiny: it registers, runs the workflows, reuses and stops."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import helios_video as pack
import numpy as np
import pytest
from helios_video.helios_core.convert.convert import convert
from helios_video.helios_core.drawn import scenes
from helios_video.helios_core.join import video
from helios_video.helios_core.pipeline import TINY
from support.comfyui import NAME, NEEDED, ROOT, messages, saved, twin, with_value

pytestmark = NEEDED


def test_it_registers_with_its_help_and_its_templates(server):
    known = json.loads(server.get("/object_info"))
    for name, kind in pack.NODE_CLASS_MAPPINGS.items():
        types = kind.INPUT_TYPES()
        assert known[name]["input_order"] == {part: list(inputs) for part, inputs in types.items()}
        assert known[name]["python_module"] == f"custom_nodes.{NAME}"
        assert server.get(f"/extensions/{NAME}/docs/{name}.md").startswith(b"# ")
    templates = json.loads(server.get("/api/workflow_templates"))[NAME]
    assert sorted(templates) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    assert not (server.base / "models" / "helios").exists()
    spoken = json.loads(server.get("/i18n"))
    for language in ("en", "zh", "ja"):
        file = ROOT / "locales" / language / "nodeDefs.json"
        assert spoken[language]["nodeDefs"] == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "chunks"), [("text_to_video", 4), ("composed_chunk", 1)])
def test_a_workflow_runs(server, name, chunks):
    source = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    entry = server.finish(server.queue(twin(name), source))
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    file = saved(server, entry)
    assert video.read_metadata(file)["workflow"] == source, "dropped on the canvas, it would not restore the graph"
    info = video.probe(file)
    assert (info.frames, info.fps, info.codec, info.pixel_format) == (33 * chunks, 24, "h264", "yuv420p")
    assert (info.colorspace, info.primaries, info.transfer) == (1, 1, 1)
    embedded = video.read_metadata(file)["prompt"]
    assert {n: node["inputs"] for n, node in embedded.items()} == {n: node["inputs"] for n, node in twin(name).items()}


def test_two_decoders_make_two_videos_of_the_same_latents(server):
    entry = server.run(twin("unified_latents"))
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    files = [next((server.base / "output" / "video").glob(f"helios_by_{name}_*.mp4")) for name in ("vae", "ul")]
    one, other = (video.read_frames(file).astype(int) for file in files)
    assert len(one) == len(other) == 33
    assert 0.5 < abs(one - other).mean() < 10
    assert (server.base / "log.txt").read_text().count("Requested to load UL") == 1


def test_a_checkpoint_in_comfyuis_own_folders(server, tmp_path):
    """helios-tiny as three files: listed, chosen, and the same video as from its folder, to bfloat16's rounding: the
    tensors lie at other addresses in other files, and the CPU's matrix products sum in an order that depends on it."""
    for file in convert(TINY, tmp_path / "tiny", form="comfy"):
        place = server.base / "models" / file.parent.name
        place.mkdir(exist_ok=True)
        file.rename(place / file.name)
    parts = {"text_encoder": "tiny_text_encoder.safetensors", "vae": "tiny_vae.safetensors"}
    chosen = {"model": "tiny_transformer.safetensors", **parts}
    inputs = json.loads(server.get("/object_info/HeliosLoader"))["HeliosLoader"]["input"]
    offered = {**inputs["required"], **inputs["optional"]}
    assert all(name in str(offered[key]) for key, name in chosen.items())
    entries = [server.run(with_value(twin("composed_chunk"), "HeliosLoader", **values)) for values in ({}, chosen)]
    assert [entry["status"]["status_str"] for entry in entries] == ["success"] * 2
    one, other = (video.read_frames(saved(server, entry)) for entry in entries)
    assert one.shape == other.shape and abs(one.astype(int) - other).mean() < 1
    refused = server.run(with_value(twin("composed_chunk"), "HeliosLoader", **chosen | {"vae": "from model"}))
    (error,) = messages(refused, "execution_error")
    assert "no vae; choose one, such as wan_2.1_vae.safetensors" in error["exception_message"]


def test_finished_chunks_are_reused(server):
    server.run(twin("text_to_video"))
    prompt = twin("text_to_video")
    last = max((n for n, node in prompt.items() if node["class_type"] == "DMDPyramidSample"), key=int)
    prompt[last]["inputs"]["shift_tokens"] = "after upsample"
    entry = server.run(prompt)
    cached = {n for content in messages(entry, "execution_cached") for n in content["nodes"]}
    ran = {node["class_type"] for n, node in prompt.items() if n not in cached}
    assert ran == {"DMDPyramidSample", "ChunkConcat", "SaveVideo"} and len(prompt) - len(cached) == 3


def test_another_joint_joins_again_and_samples_nothing(server):
    shots = []
    for drop in (False, True):
        prompt = with_value(twin("text_to_video"), "SaveVideo", filename_prefix=f"joined/{drop}")
        prompt = with_value(prompt, "ChunkConcat", drop_first_frame=drop)
        entry = server.run(prompt)
        cached = {n for content in messages(entry, "execution_cached") for n in content["nodes"]}
        shots.append(video.read_frames(saved(server, entry)))
    assert {node["class_type"] for n, node in prompt.items() if n not in cached} == {"ChunkConcat", "SaveVideo"}
    assert [len(shot) for shot in shots] == [132, 129]
    assert (shots[0][:33] == shots[1][:33]).all()


def test_a_later_prompt_of_a_schedule_changes_later_chunks_only(server):
    """All samplers run again, since all hang on the schedule; those that see the same prompts are done at once."""
    prompt = with_value(twin("prompt_schedule"), "DMDPyramidSample", steps="4,4,4")
    schedule = next(node["inputs"] for node in prompt.values() if node["class_type"] == "HeliosPromptSchedule")
    shots, times = [], []
    for last in ("a blue square", "a green circle"):
        schedule["text"] = f"0: a red circle moving left\n1 (2): a yellow circle moving left\n3: {last}"
        began = time.monotonic()
        entry = server.run(prompt)
        assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
        times.append(time.monotonic() - began)
        shots.append(video.read_frames(saved(server, entry)))
    same = [(a == b).all() for a, b in zip(*(shot.reshape(4, 33, *shot.shape[1:]) for shot in shots))]
    assert same == [True, True, True, False]
    print("seconds, first run and second:", times)
    schedule["text"] = "0: a; 4: b; 4: c"
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.queue(prompt)
    assert refused.value.code == 400 and "chunk 4 comes twice" in refused.value.read().decode()


def test_both_workflows_make_the_same_first_chunk(server):
    """HeliosNoise and PyramidDownsample by hand give what the sampler draws itself."""
    files = []
    for name in ("text_to_video", "composed_chunk"):
        entry = server.run(with_value(twin(name), "SaveVideo", filename_prefix=f"same/{name}"))
        files.append(video.read_frames(saved(server, entry), count=33))
    difference = abs(files[0].astype(int) - files[1])
    assert difference.max() <= 2, "decoded apart, piece by piece or whole; encoded alike"


def test_comfyuis_own_vae_nodes_take_our_vae(server):
    """Five grey pictures through VAE Encode, then VAE Decode and its tiled form, come back as five grey pictures."""
    loader = next(node for node in twin("composed_chunk").values() if node["class_type"] == "HeliosLoader")
    tiles = {"tile_size": 64, "overlap": 16, "temporal_size": 64, "temporal_overlap": 8}
    kinds = {
        "1": ("HeliosLoader", loader["inputs"]),
        "2": ("EmptyImage", {"width": 128, "height": 128, "batch_size": 5, "color": 0x808080}),
        "3": ("VAEEncode", {"pixels": ["2", 0], "vae": ["1", 2]}),
        "4": ("VAEDecode", {"samples": ["3", 0], "vae": ["1", 2]}),
        "5": ("VAEDecodeTiled", {"samples": ["3", 0], "vae": ["1", 2], **tiles}),
        "6": ("VAEEncodeTiled", {"pixels": ["5", 0], "vae": ["1", 2], **tiles}),
        "7": ("ChunkConcat", {"images": ["4", 0], "fps": 24}),
        "8": ("ChunkConcat", {"latent": ["6", 0], "decoder": ["1", 2], "clip": ["7", 0], "fps": 24}),
        "9": ("SaveVideo", {"video": ["8", 1], "filename_prefix": "vae", "format": "auto", "codec": "auto"}),
    }
    entry = server.run({n: {"class_type": kind, "inputs": inputs} for n, (kind, inputs) in kinds.items()})
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    assert video.read_frames(saved(server, entry)).shape == (10, 128, 128, 3)


def test_stop_ends_a_run_and_the_next_one_works(server):
    slow = with_value(
        with_value(twin("text_to_video"), "PrimitiveInt", value=99), "DMDPyramidSample", steps="200,200,200"
    )
    number = server.queue(slow)
    server.wait(lambda: json.loads(server.get("/queue"))["queue_running"], "the start of the prompt")
    time.sleep(2)
    pressed = time.monotonic()
    server.post("/interrupt", {})
    entry = server.finish(number)
    assert messages(entry, "execution_interrupted") and len(entry["outputs"]) < 4, "of four chunks"
    assert time.monotonic() - pressed < 5
    assert server.run(twin("composed_chunk"))["status"]["status_str"] == "success"


def test_an_error_reaches_the_user_in_words(server):
    entry = server.run(with_value(twin("text_to_video"), "HistoryMemory", width=80))
    (error,) = messages(entry, "execution_error")
    assert error["node_type"] == "HistoryMemory" and "Nearest that work" in error["exception_message"]


@pytest.mark.parametrize(("name", "chunks"), [("image_to_video", 2), ("video_to_video", 2), ("continue_video", 4)])
def test_a_workflow_that_starts_from_something_runs(server, name, chunks):
    """ComfyUI's own Load Image and Load Video, on drawn files of another size; a run saved and loaded again."""
    import av

    frames = np.concatenate([scenes.draw(scenes.scene("red", "circle", "left", "plain"), 40)] * 2, axis=2)
    av.VideoFrame.from_ndarray(frames[0], format="rgb24").save(str(server.base / "input" / "example.png"))
    video.write_video(server.base / "input" / "helios_example.mp4", frames)
    entry = server.run(twin(name))
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    assert video.probe(saved(server, entry)).frames == 33 * chunks
    if name == "continue_video":
        (kept,) = (server.base / "output" / "helios").glob("run_*_.safetensors")
        whole = server.run(with_value(twin("text_to_video"), "SaveVideo", filename_prefix="whole"))
        assert np.array_equal(*(video.read_frames(saved(server, done)) for done in (entry, whole)))
        alone = {n: node for n, node in twin(name).items() if node["class_type"] == "HeliosLoader"}
        alone["90"] = {
            "class_type": "HeliosLoadHistory",
            "inputs": {"model": [next(iter(alone)), 0], "file": kept.name},
        }
        alone["91"] = {"class_type": "PreviewAny", "inputs": {"source": ["90", 1]}}
        with pytest.raises(urllib.error.HTTPError):
            server.queue(alone)  # it is not in the output folder itself, but in helios/ there
        alone["90"]["inputs"]["file"] = f"helios/{kept.name}"
        assert server.run(alone)["status"]["status_str"] == "success"
