"""The public contract of the nodes: ids, inputs and their order, tooltips, help pages; and what each node does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core.join import video
from helios_video.helios_core.pipeline import Helios
from helios_video.helios_core.pyramid.levels import downsample
from helios_video.helios_core.workflow.format import default, has_widget, inputs_of
from helios_video.nodes import host, sockets
from support.nodes import NODES, call, make_history

ROOT = Path(pack.__file__).parent
TAKEN = {  # ids of ComfyUI's own pull request for Helios
    *("HeliosTextToVideo", "HeliosImageToVideo", "HeliosVideoToVideo", "HeliosHistoryConditioning"),
    *("HeliosPyramidSampler", "HeliosVAEDecode"),
}
# Workflow files depend on these names and their order: append, never insert, rename or remove.
INPUTS = {
    "HeliosULLoader": ("file", "backend vae"),
    "HeliosULEncode": ("images decoder", ""),
    "ULDecoder": ("latent decoder seed steps", "vae latent_noise start clip_latents tile first_latent"),
    "HeliosLora": ("model lora strength", "mode companion"),
    "HeliosLoader": ("model", "text_encoder vae backend weight_dtype offload vae_dtype vae_tiling"),
    "HeliosLoopStart": ("chunks history", "clip value_1 value_2 value_3 value_4"),
    "HeliosLoopEnd": ("loop history", "clip video value_1 value_2 value_3 value_4"),
    "T5Encode": ("text_encoder text", "one_per_line"),
    "HeliosPromptSchedule": ("text_encoder text", ""),
    "HistoryMemory": (
        "model width height",
        "image video latent vae history_sizes keep_first_frame noise_sigma_min noise_sigma_max seed posterior "
        "skip_first_chunk batch_size",
    ),
    "HeliosSaveHistory": ("model history filename_prefix", "seed"),
    "HeliosLoadHistory": ("model file", ""),
    "HeliosNoise": ("history seed", ""),
    "PyramidDownsample": ("latent factors variance_policy", "kernel reference"),
    "HeliosLatentPlot": ("latent", "latent_2 latent_3 latent_4 names"),
    "HeliosLatentRobustness": ("vae images", "frames probes weight pieces tile seed"),
    "DMDPyramidSample": (
        "model positive history seed steps",
        "negative latent cfg solver boost_first_chunk shift_tokens guidance zero_steps shift_clamp",
    ),
    "AntiDrift": ("history policy", "strength mean_threshold variance_threshold momentum seed"),
    "ChunkConcat": ("fps", "clip images latent decoder boundary drop_first_frame num_frames length boundary_frames"),
}
OUTPUTS = {
    "HeliosULLoader": "decoder:UL_DECODER",
    "HeliosULEncode": "latent:LATENT",
    "ULDecoder": "image:IMAGE",
    "HeliosLora": "model:HELIOS_MODEL report:STRING",
    "HeliosLoader": "model:HELIOS_MODEL text_encoder:HELIOS_TEXT_ENCODER vae:VAE",
    "HeliosLoopStart": "loop:HELIOS_LOOP history:HELIOS_HISTORY clip:HELIOS_CLIP index:INT "
    "value_1:* value_2:* value_3:* value_4:*",
    "HeliosLoopEnd": "history:HELIOS_HISTORY clip:HELIOS_CLIP video:VIDEO value_1:* value_2:* value_3:* value_4:*",
    "T5Encode": "conditioning:CONDITIONING",
    "HeliosPromptSchedule": "conditioning:CONDITIONING",
    "HistoryMemory": "history:HELIOS_HISTORY",
    "HeliosSaveHistory": "file:STRING",
    "HeliosLoadHistory": "history:HELIOS_HISTORY seed:INT",
    "HeliosNoise": "latent:LATENT",
    "PyramidDownsample": "latent:LATENT report:STRING levels:HELIOS_LEVELS",
    "HeliosLatentPlot": "image:IMAGE",
    "HeliosLatentRobustness": "report:STRING plots:IMAGE heat_map:IMAGE",
    "DMDPyramidSample": "latent:LATENT history:HELIOS_HISTORY",
    "AntiDrift": "history:HELIOS_HISTORY latent:LATENT report:STRING",
    "ChunkConcat": "clip:HELIOS_CLIP video:VIDEO",
}
# Options of combos: they only grow, since a saved workflow may hold any of them.
COMBOS = {
    "HeliosULLoader.file": ["helios-tiny"],
    "HeliosULLoader.backend": ["auto", "torch", "mlx"],
    "HeliosLora.lora": ["none"],
    "HeliosLora.mode": ["auto", "apply", "merge"],
    "HeliosLora.companion": ["none"],
    "HeliosLoader.model": ["helios-tiny"],
    "HeliosLoader.text_encoder": ["from model"],
    "HeliosLoader.vae": ["from model"],
    "HeliosLoader.backend": ["auto", "torch", "mlx"],
    "HeliosLoader.weight_dtype": ["auto", "bf16", "fp16", "fp32", "fp8_e4m3fn", "int8", "int4"]
    + ["int8_g32", "int8_g64", "int4_g32", "int4_g128"],
    "HeliosLoader.offload": ["auto", "none", "blocks", "sequential"],
    "HeliosLoader.vae_dtype": ["fp32", "bf16", "fp16"],
    "HeliosLoader.vae_tiling": ["auto", "off", "on"],
    "HistoryMemory.posterior": ["sample", "mean"],
    "PyramidDownsample.variance_policy": ["noise", "content", "analytic", "match", "match_channel", "match_frame"],
    "HeliosLatentRobustness.frames": ["video", "separate pictures"],
    "PyramidDownsample.kernel": ["area", "bilinear", "bilinear_aligned", "nearest", "bicubic", "lanczos"],
    "DMDPyramidSample.solver": ["auto", "dmd", "unipc", "euler"],
    "DMDPyramidSample.shift_tokens": ["before upsample", "after upsample"],
    "DMDPyramidSample.guidance": ["auto", "cfg", "cfg_zero_star"],
    "AntiDrift.policy": ["off", "corrupt", "renormalise", "anchor"],
    "ChunkConcat.boundary": ["none", "match", "crossfade"],
    "ChunkConcat.length": ["exact", "published"],
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_keep_their_order(name):
    types = NODES[name].INPUT_TYPES()
    assert tuple(" ".join(types.get(part, {})) for part in ("required", "optional")) == INPUTS[name]


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_keep_their_order(name):
    kind = NODES[name]
    assert " ".join(f"{n}:{t}" for n, t in zip(kind.RETURN_NAMES, kind.RETURN_TYPES, strict=True)) == OUTPUTS[name]


def test_combos_only_grow():
    for key, options in COMBOS.items():
        name, _, field = key.partition(".")
        assert inputs_of(NODES[name])[field][1]["options"][: len(options)] == options, key


def test_ids_are_ours_and_none_is_forgotten():
    assert set(NODES) == set(INPUTS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    assert not set(NODES) & TAKEN


@pytest.mark.parametrize("name", NODES)
def test_everything_has_a_tooltip_a_description_and_a_help_page(name):
    kind = NODES[name]
    for field, (_, options) in inputs_of(kind).items():
        assert len(options.get("tooltip", "")) > 15, f"{name}.{field} has no tooltip"
    assert len(kind.OUTPUT_TOOLTIPS) == len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES)
    assert all(len(tip) > 15 for tip in kind.OUTPUT_TOOLTIPS)
    assert len(kind.DESCRIPTION) > 40 and kind.CATEGORY == "Helios" and kind.SEARCH_ALIASES
    page = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    missing = [field for field in (*inputs_of(kind), *kind.RETURN_NAMES) if f"`{field}`" not in page]
    assert not missing, f"the help page of {name} does not explain {missing}"


@pytest.mark.parametrize("name", NODES)
def test_defaults_are_legal(name):
    for field, (what, options) in inputs_of(NODES[name]).items():
        if not has_widget(what, options):
            continue
        value = default(what, options)
        if what == "COMBO":
            assert value in options["options"], field
        if what in ("INT", "FLOAT"):
            assert options["min"] <= value <= options["max"], field
        assert "forceInput" not in options


def test_input_types_need_no_torch_and_make_no_folder(tmp_path):
    code = (
        "import sys, helios_video; "
        "[kind.INPUT_TYPES() for kind in helios_video.NODE_CLASS_MAPPINGS.values()]; "
        "print([m for m in ('torch', 'mlx', 'comfy', 'folder_paths', 'nodes', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not list(tmp_path.iterdir())


def test_loader_gives_model_text_encoder_and_vae(fake_loader):
    model, encoder, vae = call("HeliosLoader", model="helios-tiny")
    assert model is fake_loader and encoder("a b").shape == (1, 512, 24)
    assert isinstance(vae, sockets.WanVAE)


def test_loader_names_what_there_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HELIOS_MODELS", str(tmp_path))
    (tmp_path / "owner" / "Helios-X").mkdir(parents=True)
    (tmp_path / "owner" / "Helios-X" / "model_index.json").write_text("{}")
    assert inputs_of(NODES["HeliosLoader"])["model"][1]["options"] == ["helios-tiny", "owner/Helios-X"]
    assert host.model_path("owner/Helios-X") == tmp_path / "owner" / "Helios-X"
    with pytest.raises(ValueError, match="no checkpoint named 'gone'.*helios-tiny, owner/Helios-X"):
        host.model_path("gone")
    before = NODES["HeliosLoader"].IS_CHANGED("owner/Helios-X")
    (tmp_path / "owner" / "Helios-X" / "model_index.json").write_text("{ }")
    assert NODES["HeliosLoader"].IS_CHANGED("owner/Helios-X") != before


def test_history_takes_the_checkpoints_own_size_at_zero(fake_helios):
    memory = make_history(fake_helios)
    assert memory.history.shape == (1, 16, 16, 8) and memory.chunk_frames == 9
    assert not memory.history.window.any()
    assert make_history(fake_helios, width=128, height=64).history.shape == (1, 16, 8, 16)


def test_history_refuses_a_size_the_pyramid_cannot_halve(fake_helios):
    with pytest.raises(ValueError, match="width 64 or 128"):
        make_history(fake_helios, width=96, height=64)


def test_noise_is_white_seeded_and_of_its_chunk(fake_helios):
    memory = make_history(fake_helios)
    noise = call("HeliosNoise", history=memory, seed=3)[0]["samples"]
    assert noise.shape == (1, 16, 9, 16, 8) and noise.dtype == torch.float32
    assert abs(float(noise.std()) - 1) < 0.02
    assert torch.equal(noise, call("HeliosNoise", history=memory, seed=3)[0]["samples"])
    assert not torch.equal(noise, call("HeliosNoise", history=memory, seed=4)[0]["samples"])
    later = memory.append(torch.zeros(1, 16, 9, 16, 8))
    assert not torch.equal(noise, call("HeliosNoise", history=later, seed=3)[0]["samples"])


def test_noise_and_downsampling_are_what_the_sampler_draws_itself(fake_helios):
    helios = Helios(Path("."), fake_helios.config)  # no weights needed
    memory = make_history(helios).append(torch.zeros(1, 16, 9, 16, 8))
    noise = call("HeliosNoise", history=memory, seed=3)[0]
    assert torch.equal(noise["samples"], helios.noise(memory.history, 3))
    small = call("PyramidDownsample", latent=noise)[0]["samples"]
    assert torch.equal(small, downsample(helios.noise(memory.history, 3), (2, 2)))
    assert tuple(small.shape) == helios.coarsest(memory.history)


def test_downsampling_keeps_noise_white_and_reports_it():
    noise = torch.randn(1, 16, 9, 32, 32, generator=torch.Generator().manual_seed(0))
    before = noise.clone()
    small, report, _ = call("PyramidDownsample", latent={"samples": noise, "kept": 1})
    assert small["samples"].shape == (1, 16, 9, 8, 8) and small["kept"] == 1
    assert abs(float(small["samples"].std()) - 1) < 0.05
    assert [line.split(":")[0] for line in report.splitlines()] == ["32x32", "16x16", "8x8"]
    plain, *_ = call("PyramidDownsample", latent={"samples": noise}, variance_policy="content")
    assert torch.allclose(plain["samples"] * 4, small["samples"], atol=1e-6)
    assert torch.equal(noise, before)


def test_downsampling_refuses_what_it_cannot_do():
    latent = {"samples": torch.zeros(1, 16, 9, 30, 32)}
    with pytest.raises(ValueError, match="height 28 or 32"):
        call("PyramidDownsample", latent=latent)
    with pytest.raises(ValueError, match="factors 'two'"):
        call("PyramidDownsample", latent=latent, factors="two")
    with pytest.raises(ValueError, match="takes no reference"):
        call("PyramidDownsample", latent=latent, reference=latent)
    with pytest.raises(ValueError, match="wanted a video latent"):
        call("PyramidDownsample", latent={"samples": torch.zeros(1, 4, 8, 8)})


def sample(helios, memory, text="a red circle", **inputs):
    positive = call("T5Encode", text_encoder=helios.text, text=text)[0]
    return call("DMDPyramidSample", model=helios, positive=positive, history=memory, **inputs)


def test_a_chunk_comes_out_in_raw_vae_space_and_is_appended(fake_helios):
    memory = make_history(fake_helios)
    latent, later = sample(fake_helios, memory, seed=5)
    assert latent["samples"].shape == (1, 16, 9, 16, 8) and latent["samples"].dtype == torch.float32
    chunk = fake_helios.normalise(latent["samples"])
    assert torch.allclose(later.history.window[:, :, -9:], chunk, atol=1e-6)
    assert (memory.history.chunk, later.history.chunk) == (0, 1) and not memory.history.window.any()
    asked = fake_helios.calls[0]
    assert asked["seed"] == 5 and asked["steps"] is None and asked["negative"] is None and asked["start"] is None
    assert (asked["cfg"], asked["solver"], asked["shift_tokens"]) == (0.0, "auto", "before upsample")
    assert (asked["guidance"], asked["zero_steps"], asked["shift_clamp"]) == ("auto", None, False)
    sample(fake_helios, memory, guidance="cfg_zero_star", zero_steps=0, shift_clamp=True, cfg=5.0)
    asked = fake_helios.calls[-1]
    assert (asked["guidance"], asked["zero_steps"], asked["shift_clamp"]) == ("cfg_zero_star", 0, True)


def test_a_start_reaches_the_sampler_as_it_is(fake_helios):
    memory = make_history(fake_helios)
    noise = call("HeliosNoise", history=memory, seed=5)[0]
    small = call("PyramidDownsample", latent=noise)[0]
    sample(fake_helios, memory, seed=5, latent=small, steps="1,2,3")
    assert torch.equal(fake_helios.calls[0]["start"], small["samples"])
    assert fake_helios.calls[0]["steps"] == (1, 2, 3)
    with pytest.raises(ValueError, match=r"coarsest start of this size must be \[1, 16, 9, 4, 2\]"):
        sample(fake_helios, memory, latent=noise)


def test_sampling_refuses_bad_text_and_steps(fake_helios):
    memory = make_history(fake_helios)
    with pytest.raises(ValueError, match="the prompt is empty"):
        sample(fake_helios, memory, text=" ")
    with pytest.raises(ValueError, match="3 stages"):
        sample(fake_helios, memory, steps="2,2")
    with pytest.raises(ValueError, match="positive: this model takes text"):
        call("DMDPyramidSample", model=fake_helios, history=memory, positive=[[torch.zeros(1, 77, 768), {}]])
    with pytest.raises(ValueError, match="negative: wanted one text, got 2"):
        text = [torch.ones(1, 512, 24), {}]
        call("DMDPyramidSample", model=fake_helios, history=memory, positive=[text], negative=[text, text])


class Stopped(Exception):
    """Stands for ComfyUI's InterruptProcessingException."""


@pytest.fixture
def comfyui(monkeypatch, tmp_path):
    """The few functions of ComfyUI that host.py calls, and what was asked of them."""
    seen = SimpleNamespace(progress=[], stop=False, freed=[], files={})

    class Bar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            seen.progress.append((value, total, preview))

    def check():
        if seen.stop:
            raise Stopped

    known = {}

    def add(name, path, is_default=False):
        known.setdefault(name, [])
        known[name].append(path) if path not in known[name] else None

    management = SimpleNamespace(
        throw_exception_if_processing_interrupted=check,
        get_torch_device=lambda: torch.device("cpu"),
        vae_device=lambda: torch.device("cpu"),
        text_encoder_device=lambda: torch.device("cpu"),
        free_memory=lambda size, device: seen.freed.append(size),
        soft_empty_cache=lambda: None,
    )
    modules = {
        "folder_paths": SimpleNamespace(
            models_dir=str(tmp_path / "models"),
            add_model_folder_path=add,
            get_folder_paths=lambda name: list(known[name]),
            get_filename_list=lambda kind: list(seen.files.get(kind, {})),
            get_full_path=lambda kind, name: seen.files.get(kind, {}).get(name),
            get_temp_directory=lambda: str(tmp_path / "temp"),
            get_user_directory=lambda: str(tmp_path / "user"),
        ),
        "comfy": SimpleNamespace(),
        "comfy.utils": SimpleNamespace(ProgressBar=Bar),
        "comfy.model_management": management,
        "comfy.latent_formats": SimpleNamespace(Wan21=lambda: SimpleNamespace(latents_mean=torch.zeros(16))),
        "latent_preview": SimpleNamespace(
            get_previewer=lambda device, wan: SimpleNamespace(
                decode_latent_to_preview_image=lambda kind, z: (kind, z, wan.latent_rgb_factors)
            ),
            MAX_PREVIEW_RESOLUTION=512,
        ),
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(vars(content))
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def test_d10_comfyui_makes_room_before_anything_loads_and_for_each_part(comfyui, caplog):
    caplog.set_level("INFO")
    model, _, _ = call("HeliosLoader", model="helios-tiny", offload="none")
    needs = model.estimate()
    assert comfyui.freed == [needs.device("none")] and "needed with offload none" in caplog.text
    assert model.vae is not None
    assert comfyui.freed[1:] == [needs.part("vae", "none")]


def test_comfyui_sees_progress_with_previews(comfyui, fake_helios):
    sample(fake_helios, make_history(fake_helios))
    assert [(value, total) for value, total, _ in comfyui.progress] == [(n, 12) for n in range(1, 13)]
    kind, latent, colours = comfyui.progress[0][2]
    assert kind == "JPEG" and latent.shape == (1, 16, 9, 16, 8), "all frames, for another pack's previewer"
    assert np.shape(colours) == (16, 3), "fitted to this VAE"


def test_stop_is_honoured_inside_the_block_loop_and_not_swallowed(comfyui, fake_helios):
    comfyui.stop, positive = True, [[torch.ones(1, 512, 24), {}]]
    fake_helios.interrupt = host.stop_check()  # as HeliosLoader gives it
    with pytest.raises(Stopped):
        call("DMDPyramidSample", model=fake_helios, history=make_history(fake_helios), positive=positive)
    assert not comfyui.progress, "it stopped at a step, not inside the loop"


def test_comfyuis_model_folders_are_used_and_none_is_made(comfyui, tmp_path):
    assert host.model_folders() == host.model_folders() == [tmp_path / "models" / "helios"]
    assert host.model_names() == ["helios-tiny"]
    assert not (tmp_path / "models").exists()


def test_loader_offers_comfyuis_files(comfyui, tmp_path, fake_loader, monkeypatch):
    kinds = {"diffusion_models": ["wan/helios.safetensors", "flux.gguf"], "vae": ["wan.pt"]}
    kinds["text_encoders"] = ["umt5.SFT"]
    for kind, names in kinds.items():
        for name in names:
            path = tmp_path / "comfy" / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"1")
            comfyui.files.setdefault(kind, {})[name] = str(path)
    inputs = inputs_of(NODES["HeliosLoader"])
    assert inputs["model"][1]["options"] == ["helios-tiny", "wan/helios.safetensors"]
    assert inputs["text_encoder"][1]["options"] == ["from model", "umt5.SFT"]
    assert inputs["vae"][1]["options"] == ["from model"]
    asked, fake_loader.estimate = {}, lambda: SimpleNamespace(device=lambda offload: 5)
    monkeypatch.setattr("helios_video.nodes.loader.load", lambda path, **o: asked.update(path=path, **o) or fake_loader)
    call("HeliosLoader", model="wan/helios.safetensors", text_encoder="umt5.SFT")
    assert asked["path"] == Path(comfyui.files["diffusion_models"]["wan/helios.safetensors"])
    assert asked["text_encoder"] == Path(comfyui.files["text_encoders"]["umt5.SFT"]) and asked["vae"] is None
    choice = ("wan/helios.safetensors", "umt5.SFT")
    before = NODES["HeliosLoader"].IS_CHANGED(*choice)
    assert before == NODES["HeliosLoader"].IS_CHANGED(*choice, "from model", backend="auto")
    asked["text_encoder"].write_bytes(b"22")
    assert NODES["HeliosLoader"].IS_CHANGED(*choice) != before
    with pytest.raises(ValueError, match="no file named 'gone' in vae; put it into models/vae"):
        call("HeliosLoader", model="helios-tiny", vae="gone")


def images(frames=3, size=16):
    return torch.linspace(0, 1, frames).view(-1, 1, 1, 1).expand(frames, size, size, 3).clone()


@pytest.fixture
def temp(comfyui, tmp_path, monkeypatch):
    """ChunkConcat under the stand-in ComfyUI, with a VIDEO of our own."""
    from helios_video.helios_core.workflow.standins import VideoFile

    api = ModuleType(host.API)
    api.Input = SimpleNamespace(Video=SimpleNamespace(register=lambda kind: None))
    api.InputImpl = SimpleNamespace(VideoFromFile=VideoFile)
    monkeypatch.setitem(sys.modules, host.API, api)
    return tmp_path / "temp"


def test_images_become_a_growing_clip(temp):
    one, _ = call("ChunkConcat", images=images())
    two, film = call("ChunkConcat", images=images(5), clip=one)
    assert (one.num_frames, two.num_frames) == (3, 8)
    assert [s.frames for s in two.segments] == [3, 5] and two.segments[0] == one.segments[0]
    assert not list(one.folder.glob("joined*")), "joined before anybody asked for it"
    assert film.get_dimensions() == (16, 16) and video.probe(film.get_stream_source()).frames == 8
    shown = video.read_frames(film.get_stream_source())[:, 8, 8, 1] / 255
    assert np.abs(shown - np.concatenate([np.linspace(0, 1, 3), np.linspace(0, 1, 5)])).max() < 0.03


def test_latents_are_decoded_chunk_by_chunk(temp, fake_helios):
    latent, _ = sample(fake_helios, make_history(fake_helios))
    clip, film = call("ChunkConcat", latent=latent, decoder=sockets.WanVAE(fake_helios), num_frames=20)
    assert clip.num_frames == 33 and clip.size == (64, 128)
    assert video.probe(film.get_stream_source()).frames == 20
    two = {"samples": torch.cat([latent["samples"]] * 2, dim=2)}
    clip, _ = call("ChunkConcat", latent=two, decoder=sockets.WanVAE(fake_helios), drop_first_frame=True)
    assert [s.frames for s in clip.segments] == [33, 32]


def test_comfyuis_own_vae_decodes_too(temp, fake_helios):
    latent, _ = sample(fake_helios, make_history(fake_helios))
    ours = sockets.WanVAE(fake_helios)
    foreign = SimpleNamespace(latent_channels=16, decode=ours.decode)
    clip, film = call("ChunkConcat", latent=latent, decoder=foreign)
    same, other = call("ChunkConcat", latent=latent, decoder=ours)
    assert clip.num_frames == same.num_frames == 33
    assert np.array_equal(*(video.read_frames(v.get_stream_source()) for v in (film, other)))


@pytest.mark.parametrize("wired", [[], ["images", "latent"], ["latent"], ["decoder"], ["images", "latent", "decoder"]])
def test_exactly_one_way_into_chunk_concat(wired):
    with pytest.raises(ValueError, match="wire either images, or latent and decoder together"):
        call("ChunkConcat", **dict.fromkeys(wired, "something"))


def test_chunk_concat_refuses_what_does_not_fit(temp, fake_helios):
    clip, _ = call("ChunkConcat", images=images())
    with pytest.raises(ValueError, match="the clip so far has 24, this chunk 16"):
        call("ChunkConcat", images=images(), clip=clip, fps=16.0)
    with pytest.raises(ValueError, match=r"the clip's frames are \(16, 16\)"):
        call("ChunkConcat", images=images(size=32), clip=clip)
    with pytest.raises(ValueError, match="NaN"):
        call("ChunkConcat", images=images() * float("nan"))
    vae = sockets.WanVAE(fake_helios)
    with pytest.raises(ValueError, match="latent: wanted a video latent"):
        call("ChunkConcat", latent={"samples": torch.zeros(1, 48, 9, 8, 8)}, decoder=vae)
    with pytest.raises(ValueError, match="batch of 2"):
        call("ChunkConcat", latent={"samples": torch.zeros(2, 16, 9, 8, 8)}, decoder=vae)


def test_a_stopped_join_leaves_the_finished_chunks_playable(temp, comfyui, fake_helios):
    latent, _ = sample(fake_helios, make_history(fake_helios))
    vae = sockets.WanVAE(fake_helios)
    clip, _ = call("ChunkConcat", latent=latent, decoder=vae)
    comfyui.stop = True
    with pytest.raises(Stopped):
        call("ChunkConcat", latent=latent, decoder=vae, clip=clip)
    assert video.probe(clip.segments[0].path).frames == 33


def test_m16_frames_are_left_out_only_where_a_chunk_follows(temp):
    clip = None
    for count in (3, 5, 9):
        clip, film = call("ChunkConcat", images=images(count), clip=clip, drop_first_frame=True, num_frames=10)
    assert [s.frames for s in clip.segments] == [3, 4, 8]
    assert video.probe(film.get_stream_source()).frames == 10
    with pytest.raises(ValueError, match="one besides a dropped one"):
        call("ChunkConcat", images=images(1), clip=clip, drop_first_frame=True)


def test_every_boundary_gives_its_own_file_and_leaves_the_clip_before_alone(temp):
    """ComfyUI keeps results by their inputs: one clip may be gone on with in several ways."""
    rng = np.random.default_rng(0)
    picture = torch.from_numpy(rng.random((1, 8, 8, 3), np.float32)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    start, darker = picture.expand(9, 32, 32, 3), (picture * 0.9).expand(9, 32, 32, 3)
    one, _ = call("ChunkConcat", images=start)
    settings = [dict(boundary=b) for b in ("none", "match", "crossfade")]
    settings += [dict(boundary="match", boundary_frames=3), dict(drop_first_frame=True)]
    clips, shown = [], []
    for inputs in settings:
        clip, film = call("ChunkConcat", images=darker, clip=one, **inputs)
        clips.append(clip)
        shown.append(video.read_frames(film.get_stream_source())[9:, :, :, 1].mean((1, 2)))
    assert len(set(clips)) == len({clip.segments[1].path for clip in clips}) == 5
    assert len(one.segments) == 1 and all(clip.segments[0] == one.segments[0] for clip in clips)
    lack = [(means[-1] - means[0]) for means in shown]
    assert abs(lack[0]) < 1 and lack[1] < -8 and lack[2] < -6 and lack[3] < -8 and len(shown[4]) == 8
    assert abs(shown[3][3] - shown[3][-1]) < 1 < abs(shown[1][3] - shown[1][-1])


def test_a_bad_boundary_is_named(temp):
    policy = ({"boundary": "blend"}, "'blend': wanted one of none, match")
    for bad, says in (policy, ({"boundary_frames": 0}, "at least 1")):
        with pytest.raises(ValueError, match=says):
            call("ChunkConcat", images=images(), **bad)


@pytest.mark.parametrize("boundary", ["none", "match", "crossfade"])
def test_m18_latents_reach_the_decoder_as_they_are(temp, fake_helios, boundary):
    """Blending latents of two chunks gives grid patterns: whatever the boundary, each chunk is decoded alone (M15)."""
    seen, vae = [], sockets.WanVAE(fake_helios)

    def decode(z):
        seen.append(z)
        return vae.decode(z)

    latent, _ = sample(fake_helios, make_history(fake_helios))
    two = {"samples": torch.cat([latent["samples"], 2 * latent["samples"]], dim=2)}
    call("ChunkConcat", latent=two, decoder=SimpleNamespace(latent_channels=16, decode=decode), boundary=boundary)
    assert len(seen) == 2 and torch.equal(torch.cat(seen, dim=2), two["samples"])


def test_the_vae_speaks_comfyuis_interface(fake_helios):
    vae = sockets.WanVAE(fake_helios)
    z = torch.linspace(-1, 1, 9).view(1, 1, 9, 1, 1).expand(1, 16, 9, 4, 4)
    frames = vae.decode(z)
    assert frames.shape == (1, 33, 32, 32, 3) and frames.dtype == torch.float32
    assert (float(frames.min()), float(frames.max())) == (0.0, 1.0)
    assert torch.equal(frames, vae.decode_tiled(z, tile_x=8, tile_y=16, overlap=2, tile_t=16, overlap_t=2))
    assert fake_helios.vae.tiles == ((16, 8), 2)
    blocks = np.concatenate(list(vae.frames(z)))
    assert blocks.dtype == np.uint8 and np.abs(blocks / 255 - frames[0].numpy()).max() < 0.003
    assert (vae.latent_channels, vae.spacial_compression_encode(), vae.spacial_compression_decode()) == (16, 8, 8)
    assert vae.temporal_compression_decode() == 4


def test_the_vae_crops_as_comfyuis_does(fake_helios):
    vae = sockets.WanVAE(fake_helios)
    assert vae.encode(torch.rand(6, 20, 34, 3)).shape == (1, 16, 2, 2, 4)
    assert vae.encode_tiled(torch.rand(5, 16, 32, 4), tile_x=512, tile_y=512, overlap=64).shape == (1, 16, 2, 2, 4)
    with pytest.raises(ValueError, match="too small"):
        vae.encode(torch.rand(1, 4, 4, 3))
