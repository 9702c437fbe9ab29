"""Memory: what loading takes, and what is estimated before it. Named: D10."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch.files import map_file
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.backends.torch.vae import WanVAE
from helios_video.helios_core.checkpoint.precision import TEXT_FIRST
from helios_video.helios_core.checkpoint.sources import Source, Stored
from helios_video.helios_core.config.model import ModelConfig, TransformerConfig
from helios_video.helios_core.devices import host_free, working
from helios_video.helios_core.devices import needs as memory
from safetensors.torch import save_file

GIB = 2**30
LOADING = """
import json, re, sys
from pathlib import Path
import torch
from helios_video.helios_core.checkpoint import sources
from helios_video.helios_core.backends.torch import load as load_module
from helios_video.helios_core.backends.torch.load import load_transformer
from helios_video.helios_core.backends.torch.files import map_file
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.config import ModelConfig, TransformerConfig

def resident(key):
    return int(re.search(rf"{key}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

folder, dtype = sys.argv[1:]
source = sources.open_part(folder, "transformer")
config = ModelConfig(TransformerConfig(**json.loads((Path(folder) / "transformer" / "config.json").read_text())))
with torch.device("meta"):
    HeliosTransformer(config.transformer)  # torch imports sympy for that; part of the base
Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
before = resident("VmRSS")
model = load_transformer(source, config, dtype=dtype, device=torch.device("cpu"))
touched = [p.flatten()[::256].sum().item() for p in model.parameters()]  # every page
print(resident("VmHWM") - before)
"""


def published_sources(config: ModelConfig, dtype: str = "BF16") -> dict[str, Source]:
    """Headers of a checkpoint of that config, without files."""
    with torch.device("meta"):
        models = {"transformer": HeliosTransformer(config.transformer), "vae": WanVAE(config.vae)}
    found = {
        part: {
            n: Stored("x", n, dtype if part == "transformer" else "F32", tuple(t.shape), 0)
            for n, t in m.state_dict().items()
        }
        for part, m in models.items()
    }
    found["text_encoder"] = {"shared.weight": Stored("x", "shared.weight", "BF16", (5_680_000, 1000), 0)}
    return {part: Source("x", part, tensors, {}) for part, tensors in found.items()}


@pytest.fixture(scope="module")
def published():
    return published_sources(ModelConfig())


def estimate(sources, **options):
    return memory.estimate(sources, ModelConfig(), **{"width": 640, "height": 384, "device": "cuda", **options})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("stored", "asked"), [("fp32", "auto"), ("bf16", "auto"), ("fp32", "bf16")])
def test_d10_loading_takes_no_more_than_the_file(stored, asked, tmp_path):
    """1.1 times the file's size is the limit, with every page of every weight touched."""

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[stored]
    sizes = dict(num_attention_heads=12, attention_head_dim=64, rope_dim=(24, 20, 20), ffn_dim=3072, text_dim=512)
    sizes |= dict(num_layers=3 if stored == "fp32" else 5)
    torch.manual_seed(0)
    state = {n: p.detach().to(dtype) for n, p in HeliosTransformer(TransformerConfig(**sizes)).named_parameters()}
    (tmp_path / "transformer").mkdir()
    file = tmp_path / "transformer" / "model.safetensors"
    save_file(state, file)
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(sizes))
    size = file.stat().st_size
    assert 100e6 < size < 200e6
    # malloc gives memory back that it has from the system as such; of the 14B model's tensors that is every one.
    given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", LOADING, str(tmp_path), asked]
    run = subprocess.run(command, capture_output=True, text=True, env=given)
    assert run.returncode == 0, run.stderr
    ratio = int(run.stdout) / size
    print(f"{stored} -> {asked}: {ratio:.3f} of the file")
    assert 0.4 < ratio < 1.1


def test_d10_the_estimate_of_the_published_model(published):
    """Its sizes are known: 14.312 B parameters, 26.66 GiB in bf16 alone, 125 tensors of 29.2 M numbers in float32."""
    found = estimate(published)
    assert found.parts["transformer"] == pytest.approx(2 * 14.312e9 + 2 * 29.2e6, rel=1e-4)
    assert found.block * 40 / found.parts["transformer"] == pytest.approx(0.98, abs=0.01)
    assert found.parts["vae"] == pytest.approx(4 * 126.9e6, rel=1e-3)
    assert estimate(published, weight_dtype="fp32").parts["transformer"] == pytest.approx(4 * 14.312e9, rel=1e-3)
    sizes = [
        estimate(published, weight_dtype=d).parts["transformer"] / 14.312e9 for d in ("fp8_e4m3fn", "int8", "int4")
    ]
    assert sizes == pytest.approx([1.02, 1.04, 0.59], abs=0.02)


def test_d10_forty_gigabytes_of_host_memory_do_for_bf16(published):
    """The peers need 80 to 85."""
    found = estimate(published)
    assert found.host("blocks") < 32 * GIB and found.host("sequential") < 12 * GIB
    assert estimate(published, device="cpu").host("sequential") < 40e9
    assert found.shortage("blocks", None, int(40e9)) is None


def test_auto_takes_the_fastest_way_that_fits(published):
    found = estimate(published)
    assert [found.choose(int(n * GIB)) for n in (80, 40, 30, 24, 4)] == ["none", "none", "blocks", "blocks", "blocks"]
    assert found.choose(None) == "none"
    assert found.device("blocks") < 8 * GIB < found.device("sequential") < found.device("none")
    host = estimate(published, device="cpu")
    assert [host.choose(int(n * GIB)) for n in (60, 40, 30, 8)] == ["none", "none", "sequential", "sequential"]


@pytest.mark.parametrize("dtype, free", [("fp8_e4m3fn", 23.5), ("int8", 23.5), ("int4", 23.5), ("int4", 15.5)])
def test_a_transformer_that_fits_beside_the_vae_stays(published, dtype, free):
    """The text encoder was counted beside them, and the transformer was read and quantised anew for every chunk."""
    assert estimate(published, weight_dtype=dtype).choose(int(free * GIB)) == "none"


def test_blocks_are_streamed_where_parts_that_take_turns_would_load_for_every_chunk(published):
    found = estimate(published)
    assert found.fits("sequential", 30 * GIB) and not found.fits("none", 30 * GIB)
    assert found.choose(30 * GIB) == "blocks"


def test_as_many_blocks_stay_as_fit(published):
    """24 GB streamed 28 GB for every forward while 21 GB lay idle."""
    found = estimate(published, fast_bf16=True)
    assert found.blocks == 40 and found.stay(None) == found.stay(0) == 0
    least = found.device("blocks") + found.spare
    assert [found.stay(least + n * found.block) for n in (0, 1, 12, 99)] == [0, 1, 12, 40]
    assert found.stay(int(23.5 * GIB)) == 27 and estimate(published, device="cpu").stay(60 * GIB) == 0
    assert "27 of 40 blocks stay" in found.describe("blocks", "auto", int(23.5 * GIB))
    assert "stay" not in found.describe("none", "auto", 80 * GIB)


def test_guidance_has_a_second_branch_go_through_each_streamed_block(published):
    config = ModelConfig()
    guided = replace(config, defaults=replace(config.defaults, cfg=5.0))
    one, two = (
        memory.estimate(published, c, width=640, height=384, device="cuda", fast_bf16=True) for c in (config, guided)
    )
    more = [two.moments(mode)["sample"] - one.moments(mode)["sample"] for mode in ("none", "blocks")]
    assert more == [0, 4 * (2400 + 8640) * 5120]


def test_the_moments_count_what_stands_together(published):
    found = estimate(published)
    none, turns = found.moments("none"), found.moments("sequential")
    assert none["encode"] == found.parts["text_encoder"] + found.work["text_encoder"]
    assert none["sample"] - turns["sample"] == found.parts["vae"]
    assert none["decode"] - turns["decode"] == found.parts["transformer"] + found.prompts
    assert found.device("none") == max(none["sample"], none["decode"])
    assert found.moments("none", tiled=True)["decode"] < none["decode"]


def test_a_streamed_transformer_and_a_text_encoder_ask_for_no_tiles(published):
    found = estimate(published)
    streamed = found.rest + 2 * found.block + found.prompts
    assert found.part("text_encoder", "blocks") == streamed + found.parts["text_encoder"] + found.work["text_encoder"]
    assert found.part("vae", "blocks") == streamed + found.parts["vae"] + found.work["vae"]
    assert found.part("transformer", "blocks") == streamed + found.work["transformer"]


def test_a_text_encoder_that_a_host_keeps_is_counted(published):
    alone, kept = estimate(published), estimate(published, keeps=True)
    encoder = alone.parts["text_encoder"]
    assert kept.host("none") - alone.host("none") > 0.9 * encoder
    assert kept.host("blocks") == alone.host("blocks") + encoder and kept.device("none") == alone.device("none")
    cpu, kept = estimate(published, device="cpu"), estimate(published, device="cpu", keeps=True)
    assert kept.host("none") == cpu.host("none") + encoder


def test_parts_that_leave_the_device_stay_in_host_memory_where_that_suffices(published):
    found = estimate(published)
    assert found.keeps_in_host(None) == () and found.keeps_in_host(2 * GIB) == ()
    assert found.keeps_in_host(30 * GIB) == ("transformer", "vae")
    assert found.keeps_in_host(64 * GIB) == ("transformer", "vae", "text_encoder")
    assert found.keeps_in_host(64 * GIB, "none") == ("text_encoder",)
    assert estimate(published, device="cpu").keeps_in_host(64 * GIB) == ()


def test_a_shortage_says_what_to_choose_instead(published):
    found = estimate(published)
    assert found.shortage("none", 80 * GIB, 80 * GIB) is None and found.shortage("none", None, None) is None
    assert "24.0 GiB are free; choose offload auto, blocks or sequential" in found.shortage("none", 24 * GIB, None)
    assert "choose offload blocks, or a weight dtype of fewer bits" in found.shortage("sequential", 24 * GIB, None)
    assert "of host memory, 16.0 GiB are free" in found.shortage("blocks", 24 * GIB, 16 * GIB)
    text = found.describe("blocks", "auto")
    assert "transformer 26.7 GiB" in text and "offload blocks: host" in text and "decoding in tiles" in text


def test_apples_gpu_has_no_memory_of_its_own(published):
    """MPS as Metal: what is needed counts once, as the host's, and streaming blocks to it is of no use."""
    mps, metal, cuda = (estimate(published, device=device, vae_dtype="fp32") for device in ("mps", "metal", "cuda"))
    assert mps.cpu and mps.modes == ("none", "sequential") and not cuda.cpu
    assert mps.host("none") == metal.host("none") > 26 * GIB and mps.spare == 0
    assert mps.choose(8 * GIB) == "sequential"


def test_the_vae_is_in_bf16_where_cuda_is_fast_at_it(published):
    wanted = {("cuda", True): "bf16", ("cuda", False): "fp32", ("mps", True): "fp32", ("cpu", False): "fp32"}
    for (device, fast), number in wanted.items():
        auto, chosen = (
            memory.estimate(
                published, ModelConfig(), width=640, height=384, device=device, fast_bf16=fast, vae_dtype=dtype
            )
            for dtype in ("auto", number)
        )
        assert auto == chosen


def test_the_working_memory_grows_with_the_frame_and_the_batch(published):
    small, large = estimate(published).work, estimate(published, width=1280, height=768).work
    assert working.tokens(ModelConfig(), 640, 384) == (2400, 9 * 24 * 40)
    assert 2.5 < large["transformer"] / small["transformer"] < 4 and 2 < large["vae"] / small["vae"] < 4
    assert estimate(published, vae_dtype="bf16").work["vae"] * 2 == pytest.approx(small["vae"], rel=0.05)
    pair = estimate(published, batch=2).work
    assert pair["transformer"] == pytest.approx(2 * small["transformer"], rel=0.05) and pair["vae"] == small["vae"]


@pytest.mark.parametrize("stored, fast, wanted", [("F32", True, 2), ("F32", False, 4), ("F16", True, 2)])
def test_auto_counts_what_is_computed_in(stored, fast, wanted):
    sources = published_sources(ModelConfig(TransformerConfig(num_layers=1)), stored)
    found = memory.estimate(sources, ModelConfig(), width=640, height=384, device="cuda", fast_bf16=fast)
    assert found.block / (4 * 5120**2 * 2 + 2 * 5120 * 13824) == wanted


def test_a_half_precision_text_encoder_keeps_its_last_layers_in_float32(published):
    name = "encoder.block.0.layer.1.DenseReluDense.wo.weight"
    tensors = {n: Stored("x", n, "F16", (100, 100), 0) for n in (name, TEXT_FIRST)}
    sources = published | {"text_encoder": Source("x", "text_encoder", tensors, {})}
    assert estimate(sources).parts["text_encoder"] == 4 * 100**2 + 2 * 100**2


def test_estimating_a_checkpoint_loads_nothing():
    helios = load()
    found = helios.parts.estimate()
    state = helios.parts.transformer.state_dict()
    assert found.parts["transformer"] == sum(t.nbytes for t in state.values())
    helios = load(weight_dtype="int4")
    assert not helios.parts.loaded.networks and helios.parts.needs()[0].startswith("weights: ")
    held = sum(t.nbytes for t in helios.parts.transformer.state_dict().values())
    assert helios.parts.estimate().parts["transformer"] == held


def test_free_memory_of_this_machine():
    helios = load()
    free = host_free()
    assert free is None or 10**8 < free < 10**14
    assert helios.backend.free_memory("cpu") == pytest.approx(free, rel=0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="about Linux's accounting of memory")
def test_d10_a_file_larger_than_the_machines_memory_is_mapped(tmp_path):
    """A private mapping that reserves memory for changed pages is refused: 27 GB could not be mapped on 24."""
    file = tmp_path / "large"
    with file.open("wb") as opened:
        opened.truncate(2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    whole = map_file(file)
    assert whole.nbytes == file.stat().st_size and whole[-1] == 0
    whole[0] = 7  # a copy of the page
    assert file.open("rb").read(1) == b"\0"
