"""`helios doctor`: what this machine has, and where checkpoints are looked for."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import folders
from ..config import read_folder
from ..weights import find_files

LIBRARIES = ("transformers", "tokenizers", "safetensors", "einops", "numpy", "av", "ftfy")
PARTS = ("transformer", "vae", "text_encoder")
GIB = 2**30


def doctor() -> int:
    """Prints the report; 0 if helios-tiny can run here, else 1."""
    print(f"helios-video {_version('helios-video')}, Python {platform.python_version()}, {platform.platform()}")
    print(f"\nMemory: {_memory()}, {os.cpu_count()} CPU cores")
    print("\nBackends")
    usable = print_torch()
    print_mlx()
    print("\nLibraries")
    for name in LIBRARIES:
        print(f"  {name} {_version(name)}")
    print(f"\nModel folders searched (set {folders.VARIABLE} to add some)")
    for folder in folders.search_folders():
        print(f"  {folder}{'' if folder.is_dir() else '  (does not exist)'}")
    print("\nCheckpoints")
    tiny = Path(__file__).resolve().parent.parent / "assets" / folders.TINY
    sound = print_checkpoint(f"{folders.TINY} (built in)", tiny)
    for name, folder in folders.list_models(folders.search_folders()).items():
        print_checkpoint(name, folder)
    return 0 if usable and sound else 1


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.1f} GiB"
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return "size unknown"


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
    return True


def print_mlx() -> None:
    """mlx is shown so that a report from a Mac tells it apart; no networks of ours run on it yet."""
    installed = _version("mlx")
    print(f"  mlx {installed}{'' if installed == 'not installed' else ' (not used by this version)'}")


def print_checkpoint(name: str, folder: Path) -> bool:
    """One line about a checkpoint: variant, size on disk and defaults, or what is wrong with it; False then."""
    try:
        config = read_folder(folder)
        size = sum(file.stat().st_size for part in PARTS for file in find_files(folder / part))
    except ValueError as error:
        print(f"  {name}: cannot be used: {error}")
        return False
    d = config.defaults
    steps = ",".join(map(str, d.steps))
    print(f"  {name}: {config.variant}, {size / 2**20:.0f} MiB, {d.width}x{d.height}, steps {steps} {d.solver}")
    print(f"    {folder}")
    return True
