"""Down and up the resolution pyramid, and what that does to a latent's variance."""

from .levels import (
    KERNELS,
    POLICIES,
    Levels,
    __name__,
    block_noise,
    build,
    cholesky_rows,
    describe,
    downsample,
    parse_factors,
    upsample,
)

__all__ = [
    "KERNELS",
    "Levels",
    "POLICIES",
    "__name__",
    "block_noise",
    "build",
    "cholesky_rows",
    "describe",
    "downsample",
    "parse_factors",
    "upsample",
]
