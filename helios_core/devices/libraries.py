"""What computes: torch, or MLX on Apple silicon. Decided here; nothing is imported before it is used."""

from __future__ import annotations

import logging
import platform
import sys
from importlib import import_module, util

from .. import interrupts

BACKENDS = ("auto", "torch", "mlx")
INSTALL = {
    "torch": "install it as pytorch.org says for this machine",
    "mlx": "install it with the extra: pip install 'helios-video[mlx]'",
}

logger = logging.getLogger(__name__)


def choose(backend: str) -> str:
    """torch or mlx. auto: MLX on Apple silicon where it is installed, torch elsewhere.

    ValueError if it is not installed, with what to install.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}: wanted one of {', '.join(BACKENDS)}")
    if backend == "auto":
        backend = "mlx" if _apple_silicon() and installed("mlx") else "torch"
    if installed(backend):
        return backend
    if installed(other := "mlx" if backend == "torch" else "torch"):
        raise ValueError(f"{backend} is not installed; {INSTALL[backend]}, or choose backend {other}")
    both = "; ".join(f"{name}: {how}" for name, how in INSTALL.items())
    raise ValueError(f"neither torch nor mlx is installed, and one of them must compute. {both}")


def open_backend(name: str):
    """The module that loads networks, of torch or mlx. ValueError if the library is there but broken."""
    try:
        with interrupts.at_once():
            module = import_module(f"..backends.{name}", __package__)
    except ImportError as error:
        if (error.name or name).partition(".")[0] not in (name, "libmlx"):
            raise
        raise ValueError(f"{name} does not load ({error}); {INSTALL[name]}") from error
    if name == "torch" and _apple_silicon() and not installed("mlx"):
        logger.warning("torch on Apple's GPU: this was never run; MLX is what is meant for it: %s", INSTALL["mlx"])
    if name == "mlx" and module.kind(module.find_device()) == "cpu":
        logger.warning("MLX has no GPU here and computes on the CPU, where backend torch is much faster; choose that")
    return module


def for_files():
    """The module that rewrites weights: torch's where it is installed, which knows every number format, else MLX's.

    ValueError with what to install if there is neither.
    """
    return open_backend(choose("torch" if installed("torch") else "mlx" if installed("mlx") else "auto"))


def _apple_silicon() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def installed(name: str) -> bool:
    """Whether there is a library of that name; without importing it."""
    return util.find_spec(name) is not None
