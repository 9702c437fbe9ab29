"""Down and up the resolution pyramid, and the noise that blends the jump between two resolutions.

Every function takes torch, MLX or numpy arrays with axes b c t h w. White noise loses half its standard deviation in
a 2x2 mean, so noise is multiplied by the factor (policy "noise"); a clean latent is not (policy "content"): training
downsamples clean latents without a gain. Sources: the official training code; official issue #116.
"""

from __future__ import annotations

import math

from einops import rearrange, reduce

POLICIES = ("noise", "content")


def parse_factors(text: str) -> tuple[int, ...]:
    """Factors such as "2,2" as whole numbers of at least 1."""
    parts = [p.strip() for p in text.replace(" ", ",").split(",") if p.strip()]
    if not parts or not all(p.isdigit() and int(p) >= 1 for p in parts):
        raise ValueError(f"factors {text!r}: wanted whole numbers separated by commas, such as '2,2'")
    return tuple(int(p) for p in parts)


def check_factors(shape, factors) -> None:
    """Refuses a height or width that the factors do not divide."""
    total = math.prod(factors)
    *_, h, w = shape
    if h % total or w % total:
        raise ValueError(
            f"latent of {h}x{w} cannot be reduced by {' x '.join(map(str, factors))} = {total}; "
            f"nearest sizes that can: height {_near(h, total)}, width {_near(w, total)}"
        )


def _near(value: int, multiple: int) -> str:
    low = value // multiple * multiple
    return " or ".join(str(v) for v in sorted({low, low + multiple}) if v and abs(v - value) < multiple)


def downsample(x, factors=(2, 2), policy: str = "noise"):
    """Area means by each factor in turn: [b c t h w] -> [b c t h/prod w/prod].

    policy: "noise" multiplies by the factor at each step, exact unit variance for white noise; "content" does not.
    """
    if policy not in POLICIES:
        raise ValueError(f"variance policy {policy!r}: wanted one of {', '.join(POLICIES)}")
    check_factors(x.shape, factors)
    for f in factors:
        x = reduce(x, "b c t (h fh) (w fw) -> b c t h w", "mean", fh=f, fw=f)
        if policy == "noise":
            x = x * float(f)
    return x


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


def describe(levels: list) -> str:
    """A line per level: size, mean and standard deviation. levels: arrays [b c t h w], finest first."""
    lines = []
    for level in levels:
        mean = float(level.mean())
        std = float(((level - mean) ** 2).mean()) ** 0.5
        lines.append(f"{level.shape[-2]}x{level.shape[-1]}: mean {mean:+.4f}, std {std:.4f}")
    return "\n".join(lines)
