"""`helios doctor`: what this machine has, and where checkpoints are looked for."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..checkpoint import PARTS, Checkpoint, folders, held_parts, open_checkpoint, open_part
from ..config import INDEX, read_folder
from ..devices import INSTALL, needs, read_memory
from .cards import card
from .failures import caught

LIBRARIES = ("transformers", "tokenizers", "safetensors", "einops", "numpy", "av", "ftfy", "gguf")
KINDS = ("diffusion_models", "text_encoders", "vae", "loras")
SINGLE = "models/diffusion_models"
GIB = 2**30


def doctor(args: argparse.Namespace | None = None) -> int:
    """Prints the report; 0 if helios-tiny can run here, else 1. With --card, what such a card would do instead."""
    if args is not None and args.card is not None:
        return card(args.card)
    print(f"helios-video {_version('helios-video')}, Python {platform.python_version()}, {platform.platform()}")
    print(f"\nMemory: {_memory()}, {os.cpu_count()} CPU cores")
    print("\nBackends")
    usable = [print_torch(), print_mlx()]
    print("\nLibraries")
    for name in LIBRARIES:
        print(f"  {name} {_version(name)}")
    print(f"\nModel folders searched, for checkpoints (set {folders.VARIABLE} to add some) and for single files")
    for folder in folders.search_folders():
        print_folder(folder)
    for kind in KINDS:
        print(f"  {folders.kind_folder(kind)}  ({_files(kind)})")
    print(f"\nPrompt embeddings are kept in (set {folders.CACHE} to change it, or to off)")
    print(f"  {folders.cache_folder() or 'no folder: switched off'}")
    print("\nCheckpoints")
    tiny = Path(__file__).resolve().parent.parent / "assets" / folders.TINY
    sound = print_checkpoint(f"{folders.TINY} (built in)", tiny)
    for name, folder in folders.list_models(folders.search_folders()).items():
        print_checkpoint(name, folder)
    for name, path in folders.list_files("diffusion_models").items():
        print_file(name, path)
    return 0 if any(usable) and sound else 1


def print_folder(root: Path) -> None:
    """A folder of checkpoints, and what lies in it that is none, with why."""
    try:
        inside = sorted(root.iterdir()) if root.exists() else []
    except OSError as error:
        return print(f"  {root}  (cannot be read: {error.strerror})")
    found = folders.list_models([root])
    print(f"  {root}  ({f'{len(found)} found' if root.exists() else 'does not exist'})")
    for place in inside:
        if place.name.startswith(".") or any(name.split("/")[0] == place.name for name in found):
            continue
        if place.is_dir():
            print(f"    {place.name} is skipped: no {INDEX} in it, nor in a folder directly inside")
        elif place.name.lower().endswith(folders.WEIGHTS):
            print(f"    {place.name} is skipped: here are folders; a single file belongs into {SINGLE}")


def _files(kind: str) -> str:
    """What is to be said of the folder of single files of a kind."""
    if not (folder := folders.kind_folder(kind)).is_dir():
        return "does not exist"
    count, all_files = len(folders.list_files(kind)), sum(file.is_file() for file in folder.rglob("*"))
    others = f", {all_files - count} skipped: not {', '.join(folders.WEIGHTS)}" if all_files > count else ""
    return f"{count} found{others}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _memory() -> str:
    found = read_memory()
    total = "of unknown size" if found.total is None else needs.size(found.total)
    container = " (the limit of this container)" if found.limited else ""
    return f"{total}{container}{'' if found.free is None else f', {needs.size(found.free)} free'}"


def print_torch() -> bool:
    """torch and the devices it can use; False if it is not installed."""
    try:
        import torch
    except ImportError:
        print("  torch: not installed; see https://pytorch.org for the right build for this machine")
        return False
    print(f"  torch {torch.__version__}")
    for i in range(torch.cuda.device_count()):
        free, total = (value / GIB for value in torch.cuda.mem_get_info(i))
        print(f"    cuda:{i} {torch.cuda.get_device_name(i)}, {free:.1f} of {total:.1f} GiB free")
    if torch.backends.mps.is_available():
        print("    mps: Apple GPU, shares the machine's memory")
    print(f"    cpu: {torch.get_num_threads()} threads")
    from ..backends.torch import attention, find_device

    print(f"    --attention: auto, {', '.join(attention.there(find_device(), torch.bfloat16, 128))}")
    return True


def print_mlx() -> bool:
    """mlx and what it computes on; False if it is not installed."""
    try:
        import mlx.core as mx
    except ImportError:
        print(f"  mlx: not installed; for Macs with Apple silicon, {INSTALL['mlx']}")
        return False
    print(f"  mlx {_version('mlx')}")
    print(f"    {'Apple GPU, shares the machine memory' if mx.metal.is_available() else 'cpu'}")
    return True


def print_checkpoint(name: str, folder: Path) -> bool:
    """One line about a checkpoint: variant, size on disk and defaults, or what is wrong with it; False then."""
    with caught("doctor") as failed:
        config = read_folder(folder)
        found = open_checkpoint(folder)
        size = sum(file.stat().st_size for file in {f for source in found.sources.values() for f in source.files})
        d = config.defaults
        steps = ",".join(map(str, d.steps))
        about = f"{config.variant}, {size / 2**20:.0f} MiB, {d.width}x{d.height}, steps {steps} {d.solver}"
        print(f"  {name}: {about}\n    {folder}\n    {_needs(found)}")
    for failure in failed:
        print(f"  {name}: cannot be used: {failure.text}")
    return not failed


def print_file(name: str, path: Path) -> None:
    """One line about a file of models/diffusion_models: what of a checkpoint it holds, or what it is instead."""
    with caught("doctor") as failed:
        source, held = open_part(path, "transformer"), held_parts(path)
        lacks = " and ".join(f"--{part.replace('_', '-')}" for part in PARTS if part not in held)
        quantised = f", {source.quantised}" if source.quantised else ""
        print(f"  {name}: {path.stat().st_size / 2**20:.0f} MiB{quantised}{f', needs {lacks}' if lacks else ''}")
        print(f"    {path}")
    for failure in failed:
        print(f"  {name}: cannot be used: {failure.text}")


def _needs(found: Checkpoint) -> str:
    """Memory, by where it runs, for the checkpoint's own size and number format."""
    d = found.config.defaults
    cpu, gpu = (
        needs.estimate(found.sources, found.config, width=d.width, height=d.height, device=device, fast_bf16=fast)
        for device, fast in (("cpu", False), ("cuda", True))
    )
    modes = ", ".join(f"{needs.size(gpu.device(mode) + gpu.spare)} with offload {mode}" for mode in gpu.modes)
    cpu, host = needs.size(cpu.host("none")), needs.size(gpu.host("blocks"))
    return f"needs {cpu} on the CPU; on a GPU {modes} ({host} of host memory)"
