"""Peak memory of converting and of loading."""

import json
import subprocess
import sys

import pytest
import torch
from helios_video.helios_core.backends.torch.transformer import HeliosTransformer
from helios_video.helios_core.config.model import TransformerConfig
from helios_video.helios_core.convert.convert import convert
from safetensors.torch import save_file
from support.parts import TRANSFORMER

# malloc gives memory back that it has from the system as such; of the 14B model's tensors that is every one.
OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536"}
PEAK = """
import gc, sys
from helios_video.helios_core import load
from helios_video.helios_core.convert import convert
from helios_video.helios_core.backends.torch import load as backend
def memory(name):
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(name))
def load_and_cast():
    load(source, weight_dtype="fp16").parts.transformer
def load_and_use():
    for parameter in load(source).parts.transformer.parameters():
        parameter.sum()
source, out = sys.argv[1:]
convert(source, f"{out}/0.safetensors", parts=["vae"])  # imports what else there is
load(source)
for work in (
    lambda: convert(source, f"{out}/1.safetensors"),
    lambda: convert(source, f"{out}/2.safetensors", kind="int8"),
    load_and_cast,
    load_and_use,
):
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forgets the peak
    before = memory("VmRSS")
    work()
    print(memory("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def large(published, tmp_path_factory):
    """A checkpoint whose transformer has 110 MB in bf16."""
    folder = tmp_path_factory.mktemp("large") / "checkpoint"
    convert(published, folder)
    config = TRANSFORMER | dict(num_attention_heads=4, ffn_dim=4096, num_layers=8)
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    with torch.device("meta"):
        state = HeliosTransformer(TransformerConfig(**config)).state_dict()
    save_file({name: torch.ones(value.shape, dtype=torch.bfloat16) for name, value in state.items()}, file)
    return folder, file.stat().st_size


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory(large, tmp_path):
    """Beyond the libraries: converting holds a tensor or a chunk, loading one copy of the weights."""
    folder, size = large
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), str(tmp_path)],
        capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1", "PATH": "", **OWN_PAGES},
    )  # fmt: skip
    shares = [int(line) / size for line in done.stdout.split()]
    convert, quantise, cast, use = shares
    print("peak memory over weights: convert {:.2f}, quantise {:.2f}, cast {:.2f}, use {:.2f}".format(*shares))
    base = 2**24 / size  # what an allocator does not give back at once
    assert convert < base and quantise < 0.5 and cast < 1.1 + base and use < 1.1 + base
