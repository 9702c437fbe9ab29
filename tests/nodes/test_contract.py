"""The public contract of the nodes: ids, inputs and their order, options, tooltips, help pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core.workflow.format import default, has_widget, inputs_of
from support.nodes import NODES

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
    "HeliosLora": ("model lora strength", "mode companion blocks"),
    "HeliosTrainLora": (
        "model folder steps rank output_name",
        "text_encoder vae weight_dtype learning_rate sample_every seed",
    ),
    "HeliosControl": (
        "model adapter strength start_chunk end_chunk policy",
        "control latent vae width height",
    ),
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
    "HeliosLora": "model:MODEL report:STRING",
    "HeliosTrainLora": "lora:STRING samples:IMAGE report:STRING",
    "HeliosControl": "model:MODEL report:STRING",
    "HeliosLoader": "model:MODEL text_encoder:CLIP vae:VAE",
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
    "HeliosControl.adapter": ["helios-tiny-control"],
    "HeliosControl.policy": ["from adapter", "noise", "content", "analytic", "match", "match_channel"],
    "HeliosLora.lora": ["none"],
    "HeliosLora.mode": ["auto", "apply", "merge"],
    "HeliosLora.companion": ["none"],
    "HeliosTrainLora.model": ["helios-tiny"],
    "HeliosTrainLora.folder": ["none"],
    "HeliosTrainLora.weight_dtype": ["auto", "bf16", "fp16", "fp32", "fp8_e4m3fn", "int8", "int4"],
    "HeliosLoader.model": ["helios-tiny"],
    "HeliosLoader.text_encoder": ["from model"],
    "HeliosLoader.vae": ["from model"],
    "HeliosLoader.backend": ["auto", "torch", "mlx"],
    "HeliosLoader.weight_dtype": ["auto", "bf16", "fp16", "fp32", "fp8_e4m3fn", "int8", "int4"]
    + ["int8_g32", "int8_g64", "int4_g32", "int4_g128"],
    "HeliosLoader.offload": ["auto", "none", "blocks", "sequential"],
    "HeliosLoader.vae_dtype": ["auto", "fp32", "bf16", "fp16"],
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


def test_the_rooms_of_core_can_be_probed():
    """torch.compile pickles, and pickle asks every module for a name; in ComfyUI no block was compiled."""
    from helios_video.nodes import core

    assert core.steps.parse_steps and not hasattr(core, "torch") and not hasattr(core, "_hidden")
