"""The real networks on fake `cuda` tensors, on a machine without a GPU, while a dispatch mode counts live bytes.

torch's FakeTensorMode runs every operation by shape, type and device alone. A CPU build of torch lacks the guard that
switches CUDA devices; one that does nothing is compiled here. `install` changes torch for good, so it is for a process
of its own: tests/benchmarks/estimate.py is one. What a trace does not see: the workspace of a library's kernel (cuDNN,
cuBLAS), and what the caching allocator leaves unused.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace c10::impl { C10_REGISTER_GUARD_IMPL(CUDA, NoOpDeviceGuardImpl<DeviceType::CUDA>) }
"""
FREE = 10**13  # bytes that the fake device says are free
aten = torch.ops.aten


def build_guard(folder: Path) -> Path:
    """The no-op guard as a library. RuntimeError says why there is none."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise RuntimeError("no g++ to compile the guard with")
    home, source, library = Path(torch.__file__).parent, folder / "guard.cpp", folder / "guard.so"
    source.write_text(GUARD)
    command = [compiler, "-shared", "-fPIC", "-std=c++20", f"-I{home / 'include'}", str(source), "-o", str(library)]
    made = subprocess.run([*command, f"-L{home / 'lib'}", "-lc10"], capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"the guard does not compile: {made.stderr[-500:]}")
    return library


class Fake(FakeTensorMode):
    """avoid_device_init: as on a machine without CUDA, whatever torch.cuda says by then."""

    avoid_device_init = True


class Live(TorchDispatchMode):
    """Counts the bytes of all storages by device. Data that would be looked at is made up: flags are true."""

    def __init__(self):
        from helios_video.helios_core.backends.torch.counting import leaves

        super().__init__()
        self.leaves = leaves
        self.live, self.peak, self.seen = Counter(), Counter(), set()

    def reset(self) -> None:
        """The peak is what there is now."""
        self.peak = Counter(self.live)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 0
        if func is aten.equal.default:
            return True
        out = func(*args, **(kwargs or {}))
        for t in self.leaves(out):
            self._count(t.untyped_storage(), t.device.type)
        return out

    def _count(self, storage, device: str) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.live[device] += size
        self.peak[device] = max(self.peak[device], self.live[device])

        def gone() -> None:
            self.seen.discard(key)
            self.live[device] -= size

        weakref.finalize(storage, gone).atexit = False


class Stub:
    """In place of a CUDA stream or event: takes any call."""

    def __init__(self, *args, **kwargs):
        pass

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def install(guard: Path) -> None:
    """Has torch believe in a GPU of compute capability 9. Before anything of the pack is imported, for decorators."""
    if not torch.cuda.is_available():
        torch.ops.load_library(str(guard))
    fake_tensor.init_gpu_context = lambda *args, **kwargs: None
    # In inference mode composite operations reach a dispatch mode whole, and what they hold in between is not seen.
    torch.inference_mode = lambda mode=True: torch.no_grad()
    torch.is_inference_mode_enabled = lambda: not torch.is_grad_enabled()
    cuda = torch.cuda
    cuda.is_available, cuda.is_initialized = (lambda: True), (lambda: False)
    cuda.get_device_capability = lambda device=None: (9, 0)
    cuda.Stream, cuda.Event, cuda.current_stream = Stub, Stub, Stub
    cuda.stream, cuda.empty_cache = (lambda stream: contextlib.nullcontext()), (lambda: None)
    cuda.memory_reserved = cuda.memory_allocated = lambda device=None: 0
    cuda.mem_get_info = lambda device=None: (FREE, FREE)
    empty, data = torch.empty, torch.Tensor.data
    torch.empty = lambda *args, pin_memory=False, **kwargs: empty(*args, **kwargs)
    torch.Tensor.record_stream = lambda self, stream: None
    torch.Tensor.pin_memory = lambda self, device=None: self.clone()

    def put(self, value):
        data.__set__(self, value)
        self.fake_device = value.fake_device

    FakeTensor.data = property(data.__get__, put)
    FakeTensor.data_ptr = lambda self: self.untyped_storage()._cdata
    FakeTensor.numpy = lambda self: np.zeros(tuple(self.shape), str(self.dtype).removeprefix("torch."))
    F.scaled_dot_product_attention = attention


def attention(q, k, v, attn_mask=None, **options):
    """As a fused kernel does it: no logits, the result [b h n d] with tokens before heads in memory."""
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[-1]).transpose(1, 2)


def checkpoint(folder: Path, layers: int, dtype: str = "BF16") -> Path:
    """A folder in the published layout and of the published sizes, its weights holes in files. layers: of the
    transformer, 40 as published; dtype: of its numbers."""
    from helios_video.helios_core.backends.torch import shapes
    from helios_video.helios_core.commands import hollow
    from helios_video.helios_core.config import TransformerConfig, VAEConfig

    return hollow.checkpoint(folder, TransformerConfig(num_layers=layers), VAEConfig(), shapes, dtype=dtype)


@contextlib.contextmanager
def faked(mode):
    """Within it tensors are fake and seen by a dispatch mode, and nothing is read from a checkpoint's files."""
    from helios_video.helios_core.backends.torch import compiled, files, offload, quantising, triton_ops

    files.read = lambda stored: torch.empty(stored.stored_shape, dtype=files.STORED[stored.dtype])
    files.map_file = lambda path: torch.empty(path.stat().st_size, dtype=torch.uint8)
    quantising.AT_ONCE = 2**40  # in one call and in this thread, whose mode others do not have
    offload.host_free = lambda: FREE  # so that no thread stages what streams: fake tensors are for one
    compiled.wanted = triton_ops.trusted = lambda *args: False  # which both would try their code on data
    with Fake(allow_non_fake_inputs=True), mode:
        yield mode


def traced():
    """The same; gives the `Live` that counts."""
    return faked(Live())
