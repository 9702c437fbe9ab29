"""Down and up the resolution pyramid, and the noise that blends the jump between two resolutions.

Every function takes torch, MLX or numpy arrays with axes b c t h w. White noise loses half its standard deviation in
a 2x2 mean, so noise is multiplied by the factor (policy "noise"); a clean latent is not (policy "content"): training
downsamples clean latents without a gain. Sources: the official training code; official issue #116.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from einops import rearrange

from .. import resample
from ..resample import KERNELS
from . import variance
from .variance import POLICIES


@dataclass(frozen=True, eq=False)
class Levels:
    """A pyramid, finest first: arrays [b c t h w], and the same without the policy; what it is, and what to know."""

    arrays: tuple
    plain: tuple
    label: str
    notes: tuple[str, ...] = ()


def parse_factors(text: str) -> tuple[Fraction, ...]:
    """Factors such as "2,2" or "3/2, 2": whole numbers or fractions of at least 1. ValueError for anything else."""
    parts = re.sub(r"\s*/\s*", "/", text).replace(",", " ").split()
    if not parts or not all(re.fullmatch(r"[0-9]{1,9}(/0*[1-9][0-9]{0,8})?", p) and Fraction(p) >= 1 for p in parts):
        raise ValueError(
            f"factors {text!r}: wanted whole numbers or fractions of at least 1, separated by commas, such as '2,2' or "
            "'3/2,2'"
        )
    return tuple(Fraction(p) for p in parts)


def check_factors(shape, factors) -> None:
    """ValueError for a height or width that the factors do not divide; it names the nearest sizes that work."""
    total = math.prod(factors)
    *_, h, w = shape
    if h % total or w % total:
        raise ValueError(
            f"latent of {h}x{w} cannot be reduced by {' x '.join(map(str, factors))} = {total}; "
            f"nearest sizes that can: height {_near(h, total)}, width {_near(w, total)}"
        )


def _near(value: int, factor) -> str:
    multiple = Fraction(factor).numerator
    low = value // multiple * multiple
    return " or ".join(str(v) for v in sorted({low, low + multiple}) if v and abs(v - value) < multiple)


def _check(x, factors, policy: str, kernel: str, reference) -> None:
    if policy not in POLICIES:
        raise ValueError(f"variance policy {policy!r}: wanted one of {', '.join(POLICIES)}")
    if kernel not in KERNELS:
        raise ValueError(f"kernel {kernel!r}: wanted one of {', '.join(KERNELS)}")
    if reference is not None:
        _check_reference(x, policy, reference)
    if any(f < 1 for f in factors):
        raise ValueError(f"factors {', '.join(map(str, factors))}: wanted 1 or more each; this only makes smaller")
    if policy == "noise" and kernel == "area":
        check_factors(x.shape, factors)
    *_, h, w = x.shape
    for i, f in enumerate(factors):
        if not resample.reduced(h, f) or not resample.reduced(w, f):
            raise ValueError(
                f"latent of {x.shape[-2]}x{x.shape[-1]}: step {i + 1}, by {f}, would leave nothing of {h}x{w}; "
                f"wanted a factor of at most {min(h, w)} there"
            )
        h, w = resample.reduced(h, f), resample.reduced(w, f)
    check_finite(x, "latent")


def _check_reference(x, policy: str, reference) -> None:
    if policy not in variance.GROUPS:
        raise ValueError(f"policy {policy!r} takes no reference; disconnect it, or choose {', '.join(variance.GROUPS)}")
    check_finite(reference, "reference")
    wanted, came = tuple(x.shape[:3]), tuple(reference.shape[:3])
    fits = came[0] in (1, wanted[0]) and came[1] == wanted[1]
    if not fits or (policy == "match_frame" and came[2] not in (1, wanted[2])):
        axes = "batch, channels, frames" if policy == "match_frame" else "batch, channels"
        raise ValueError(
            f"reference: its {axes} must be the latent's (or a batch or frame of 1); wanted {list(wanted)}, got "
            f"{list(came)}. Is it of another model?"
        )


def check_finite(x, name: str) -> None:
    """ValueError, with the input's name, for NaN and Inf."""
    if float((x * 0).sum()) != 0:
        raise ValueError(f"{name}: holds NaN or Inf; the node that made it went wrong, look there first")


def build(x, factors=(2, 2), policy: str = "noise", *, kernel: str = "area", reference=None) -> Levels:
    """The pyramid of x [b c t h w]: reduced by each factor in turn, each level's spread set by the policy.

    policy: see variance. Each level is made from the plain one above it, so gains do not pile up. "noise" with
    "area" is the reference for noise, and refuses what it is not exact for: sizes that the factors do not divide.
    reference: [b|1 c t h w], whose standard deviations the match policies aim at; x's own if left open. ValueError
    for what is unknown, unfit or not finite.
    """
    _check(x, factors, policy, kernel, reference)
    levels, plains, notes, total = [x], [x], [], 1.0
    norms = variance.Norms(x, kernel) if policy == "analytic" else None
    target = variance.moments(x if reference is None else reference, policy) if policy in variance.GROUPS else None
    for f in factors:
        plain, total = resample.shrink(plains[-1], f, kernel), total * float(f)
        level = plain
        if policy == "noise":
            level = plain * total
        elif norms is not None:
            norms.step(f)
            level = plain * resample.like(norms.gain(), plain)
        elif target is not None:
            level, flat = variance.match(plain, target, policy)
            if flat:
                notes.append(_flat_note(plain, policy, flat))
        levels.append(level)
        plains.append(plain)
    label = f"{policy}, {kernel}, {' x '.join(map(str, factors))}"
    return Levels(tuple(levels), tuple(plains), label, tuple(notes))


def _flat_note(level, policy: str, flat: int) -> str:
    what = {"match": "latents", "match_channel": "channels", "match_frame": "channels of a frame"}[policy]
    return f"note: at {level.shape[-2]}x{level.shape[-1]}, {flat} {what} constant, with nothing to stretch: left as is"


def spread(x) -> tuple[float, float]:
    """Mean and standard deviation of all values."""
    mean = x.mean()
    return float(mean), float(((x - mean) ** 2).mean()) ** 0.5


def downsample(x, factors=(2, 2), policy: str = "noise", *, kernel: str = "area", reference=None):
    """The coarsest level of `build`: [b c t h w] -> [b c t h/prod w/prod]."""
    return build(x, factors, policy, kernel=kernel, reference=reference).arrays[-1]


def upsample(x, factor: int = 2):
    """Nearest neighbour: [b c t h w] -> [b c t h*factor w*factor]."""
    x = rearrange([x] * factor, "fh b c t h w -> b c t (h fh) w")
    return rearrange([x] * factor, "fw b c t h w -> b c t h (w fw)")


def block_noise(white, gamma: float):
    """Noise whose 2x2 blocks have covariance (1 + gamma) I - gamma 11^T, from white noise [b c t h w].

    At gamma 1/3 every block sums to zero. The closed form of the Cholesky factor: the matrix is singular there, and
    a numerical factorisation fails on some machines. White values of a block are read in row-major order.
    """
    a, b, c, d = rearrange(white, "b c t (h fh) (w fw) -> (fh fw) b c t h w", fh=2, fw=2)
    rows = []
    pivots = cholesky_rows(gamma)
    for row in pivots:
        terms = [weight * z for weight, z in zip(row, (a, b, c, d), strict=True) if weight]
        rows.append(sum(terms[1:], terms[0]))
    return rearrange(rows, "(fh fw) b c t h w -> b c t (h fh) (w fw)", fh=2, fw=2)


def cholesky_rows(gamma: float) -> list[list[float]]:
    """Rows of the lower Cholesky factor of (1 + gamma) I - gamma 11^T, 4x4, also where it is singular."""
    rows = [[0.0] * 4 for _ in range(4)]
    for i in range(4):
        for j in range(i + 1):
            rest = (1.0 if i == j else -gamma) - sum(rows[i][k] * rows[j][k] for k in range(j))
            if i == j:
                rows[i][j] = math.sqrt(rest) if rest > 1e-12 else 0.0
            else:
                rows[i][j] = rest / rows[j][j] if rows[j][j] else 0.0
    return rows


def describe(levels: Levels) -> str:
    """A line per level, finest first, then the notes. gain: what the policy made of the plain level's spread."""
    return "\n".join([*map(_line, levels.arrays, levels.plain), *levels.notes])


def _line(x, plain) -> str:
    (mean, std), before = spread(x), spread(plain)[1]
    _, channels = variance.moments(rearrange(x, "b c t h w -> 1 c b t (h w)"), "match_channel")
    return (
        f"{x.shape[-2]}x{x.shape[-1]}: mean {mean:+.4f}, std {std:.4f}, min {float(x.min()):+.4f}, "
        f"max {float(x.max()):+.4f}, channel std {float(channels.min()):.4f} to {float(channels.max()):.4f}, "
        f"gain {std / before if before else 1:.4f}"
    )
