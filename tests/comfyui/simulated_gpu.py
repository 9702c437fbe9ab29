"""ComfyUI's real model management over a fake GPU: python simulated_gpu.py COMFYUI PARENT GIB DTYPE [STATE].

STATE: novram, highvram or dynamic. PARENT: the folder that holds the pack as helios_video. Two chunks of a
published-size model, sampled and decoded at 640x384; prints as JSON what was moved between host and device per chunk,
the peak, and what was loaded at the end. A process of its own, in ComfyUI's Python: it changes torch for good.
dynamic: ComfyUI's ModelPatcherDynamic over a stand-in for its driver (`Vbar`), of which half the device may be used.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

comfyui, parent, gib, dtype, *state = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
os.environ["HELIOS_CACHE"] = "off"
sys.path[:0] = [comfyui, parent, str(Path(__file__).parents[1])]
GIB = 2**30

import torch  # noqa: E402
from support import fake_cuda  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    fake_cuda.install(fake_cuda.build_guard(Path(folder)))
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.ldm.modules.attention as attention  # noqa: E402
import comfy.model_management as management  # noqa: E402
import folder_paths  # noqa: E402, F401
from helios_video.nodes import engine, engine_layers, loader  # noqa: E402

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


class Moves(fake_cuda.Live):
    """Counts bytes that go from host to device ("in") and back ("out") too."""

    def __init__(self):
        super().__init__()
        self.moved = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func in (fake_cuda.aten._to_copy.default, fake_cuda.aten.copy_.default):
            source = args[1] if func is fake_cuda.aten.copy_.default else args[0]
            if source.device.type != out.device.type:
                self.moved["in" if out.device.type == "cuda" else "out"] += out.nbytes
        return out


def simulate(live: Moves) -> None:
    """Has ComfyUI see the fake GPU."""
    management.cpu_state, management.vram_state = management.CPUState.GPU, management.VRAMState.NORMAL_VRAM
    named = {"novram": management.VRAMState.NO_VRAM, "highvram": management.VRAMState.HIGH_VRAM}
    management.vram_state = named.get(state[0] if state else "", management.vram_state)
    for name in ("get_torch_device", "vae_device", "text_encoder_device"):
        setattr(management, name, lambda: GPU)
    for name in ("unet_offload_device", "vae_offload_device", "text_encoder_offload_device"):
        setattr(management, name, lambda: CPU)
    management.pin_memory = management.unpin_memory = lambda tensor: False
    management.soft_empty_cache = lambda *args: None
    management.get_offload_stream = lambda device: None
    management.cuda_device_context = lambda device: contextlib.nullcontext()
    torch.cuda.synchronize = lambda *args: None
    torch.cuda.get_device_properties = lambda device=None: SimpleNamespace(major=9, minor=0, name="simulated")

    def free(device=None, torch_free_too=False):
        left = (float(gib) * GIB if device != CPU else 64 * GIB) - live.live["cuda" if device != CPU else "cpu"]
        return (left, 0) if torch_free_too else left

    management.get_free_memory = free
    torch.cuda.mem_get_info = lambda device=None: (int(free()), int(float(gib) * GIB))
    torch.nn.Module._apply = apply
    engine_layers.optimized_attention = attention.attention_pytorch  # as on a GPU; not the CPU's own


class Vbar:
    """What of comfy_aimdo's ModelVBAR is called: pages stay while there is room. pins: of faults not yet released."""

    all: list = []

    def __init__(self, size, index):
        self.end, self.resident, self.memory, self.pins = 0, 0, {}, Counter()
        Vbar.all.append(self)

    def alloc(self, size):
        self.end += size
        return self, self.end - size, size

    def prioritize(self):
        pass

    def loaded_size(self):
        return self.resident

    def free_memory(self, size):
        self.memory.clear()
        freed, self.resident = self.resident, 0
        return freed

    @staticmethod
    def fault(place):
        self, start, size = place
        if start not in self.memory:
            if self.resident + size > float(gib) * GIB / 2:
                return None
            self.memory[start] = torch.empty(size, dtype=torch.uint8, device=GPU)
            self.resident += size
        self.pins[start] += 1
        return start

    @staticmethod
    def unpin(place):
        place[0].pins[place[1]] -= 1


def simulate_dynamic() -> None:
    """ComfyUI's dynamic VRAM, over `Vbar`."""
    import comfy.memory_management
    import comfy.model_patcher
    import comfy.pinned_memory
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar as driver
    import comfy_aimdo.torch

    comfy.memory_management.aimdo_enabled = True
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    driver.ModelVBAR, driver.vbar_fault, driver.vbar_unpin = Vbar, Vbar.fault, Vbar.unpin
    driver.vbar_signature_compare = lambda one, other: one is not None and one == other
    driver.vbars_analyze = lambda *args: 0
    comfy_aimdo.torch.aimdo_to_tensor = lambda place, device: place[0].memory[place[1]]
    comfy_aimdo.host_buffer.HostBuffer = type("Pinned", (fake_cuda.Stub,), {"size": 0})
    comfy.pinned_memory.get_pin = lambda *args, **kwargs: None
    comfy.pinned_memory.pin_memory = lambda *args, **kwargs: False
    management.ensure_pin_registerable = management.pinned_hostbuf_size = lambda *args: 0
    management.device_supports_non_blocking = lambda device: True
    management.mark_mmap_dirty = lambda storage: None
    management.NUM_STREAMS = 2


def apply(module, function, recurse=True):
    """Module._apply for fake tensors, which cannot be swapped in place."""
    for child in module.children():
        child._apply(function)
    for kept, wrap in (
        (module._parameters, lambda t: torch.nn.Parameter(t, requires_grad=False)),
        (module._buffers, None),
    ):
        for name, tensor in kept.items():
            if tensor is not None:
                kept[name] = wrap(function(tensor)) if wrap else function(tensor)
    return module


def main() -> dict:
    """The report."""
    from helios_video.helios_core.backends.torch import files
    from helios_video.helios_core.text import Embedding

    files.read = lambda stored: torch.empty(stored.stored_shape, dtype=files.STORED[stored.dtype])
    files.map_file = lambda path: torch.empty(path.stat().st_size, dtype=torch.uint8)
    live = Moves()
    with tempfile.TemporaryDirectory() as folder, fake_cuda.Fake(allow_non_fake_inputs=True), live, torch.no_grad():
        simulate(live)
        if state == ["dynamic"]:
            simulate_dynamic()
        made = fake_cuda.checkpoint(Path(folder) / "published", 40)
        loader.host.model_path = lambda name: made
        model, _, vae = loader.HeliosLoader().load("published", backend="torch", weight_dtype=dtype)
        text, chunks = Embedding.of(torch.zeros(1, 512, 4096)), []
        for _ in range(2):
            helios = engine.pipeline(model)
            live.moved.clear(), live.reset()
            *_, step = helios.sample(helios.history(640, 384), text, seed=0, steps=(1, 1, 1), boost_first_chunk=False)
            vae.decode(helios.denormalise(step.latent))
            there = [entry.model for entry in management.current_loaded_models]
            loaded = {type(model.model).__name__: model.loaded_size() / GIB for model in there}
            moved = {way: size / GIB for way, size in live.moved.items()}
            chunks.append({"moved": moved, "peak": live.peak["cuda"] / GIB, "loaded": loaded})
        forwards, size = 3, model.model_size() / GIB
    pins = sum(count for vbar in Vbar.all for count in vbar.pins.values())
    return {"chunks": chunks, "size": size, "forwards": forwards, "pins": pins}


logging.disable(logging.INFO)
print("REPORT", json.dumps(main()))
