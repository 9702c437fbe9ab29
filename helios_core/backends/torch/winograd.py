"""3x3x3 convolution in a quarter of the multiplications: Winograd's F(4x4, 3x3) in space, direct in time.

On a CPU without matrix units a float32 convolution is bound by its multiplications, so oneDNN's direct kernel,
which already runs at the machine's ceiling, can only be passed by multiplying less. Every 4x4 patch of the output
is A' [ (G w G') * (B' x B) ] A (Lavin and Gray 2015, eq. 8) with x its 6x6 patch of the input: 36 products
instead of 144. The transforms are small matrix products over long rows, the products 36 matrix products over
channels, each summed over the three taps in time. Work goes through two reused buffers, in strips of the frame,
since memory that was never touched costs more than the arithmetic on it.

The evaluation points 0, 1, -1, 2, -1/2, infinity are those of least error for random data among small fractions:
about 1e-6 of a layer's output, where the direct convolution has 3e-7.
"""

from functools import cache

import torch
from einops import rearrange
from torch import Tensor

POINTS = (0.0, 1.0, -1.0, 2.0, -0.5)
TILE, PATCH, TAPS = 4, 6, 3
STRIP_ROWS = 640  # rows of one matrix product: enough for its full speed, few enough for the cache
GROUP = 4  # matrix products per call, so that their sums over time stay in the cache


@cache
def matrices() -> tuple[Tensor, Tensor, Tensor]:
    """A' [4, 6], G [6, 3], B' [6, 6] of Cook and Toom for POINTS and infinity, float32."""
    p = torch.tensor(POINTS, dtype=torch.float64)
    others = [torch.cat([p[:i], p[i + 1 :]]) for i in range(len(p))]

    def powers(n):
        last = torch.eye(n, dtype=torch.float64)[-1:]
        return torch.cat([p[:, None] ** torch.arange(n), last])

    scale = torch.stack([(p[i] - o).prod() for i, o in enumerate(others)] + [torch.ones((), dtype=torch.float64)])
    rows = [polynomial(roots) for roots in [*others, p]]
    b = torch.stack([torch.nn.functional.pad(row, (0, PATCH - len(row))) for row in rows])
    return powers(TILE).T.float().contiguous(), (powers(TAPS) / scale[:, None]).float(), b.float()


def polynomial(roots: Tensor) -> Tensor:
    """Coefficients, lowest first, of the product of (x - root)."""
    c = torch.ones(1, dtype=torch.float64)
    for root in roots:
        zero = torch.zeros(1, dtype=torch.float64)
        c = torch.cat([zero, c]) - root * torch.cat([c, zero])
    return c


def padded(size: int) -> int:
    """Pixels that a row or column of `size` needs in the input: whole tiles and a border of one at either end."""
    return -(-size // TILE) * TILE + 2


def filters(weight: Tensor, scratch) -> Tensor:
    """Weight [o, c, 3, 3, 3] -> [36, 3, o, c], the 36 positions column by column."""
    o, c = weight.shape[:2]
    taps = scratch("strip 0", (TAPS, o * c, TAPS, TAPS))
    taps.copy_(rearrange(weight, "o c t y x -> t (o c) x y"))
    g = torch.kron(matrices()[1], matrices()[1])
    out = torch.mm(g, taps.view(-1, TAPS * TAPS).T, out=scratch("filters", (PATCH * PATCH, TAPS * o * c)))
    return out.view(-1, TAPS, o, c)


def to_patches(x: Tensor, top: int, rows: int, scratch) -> Tensor:
    """x [t, y, x, c] -> transformed patches [36, t * rows * tiles, c] of `rows` rows of tiles, the first at `top`."""
    t, _, width, c = x.shape
    tiles = (width - 2) // TILE
    b = matrices()[2]
    tall = scratch("strip 0", (rows, t, PATCH, width * c))
    for row in range(rows):
        y = (top + row) * TILE
        torch.bmm(b.expand(t, -1, -1), x[:, y : y + PATCH].flatten(2), out=tall[row])
    step = tall.stride()
    shape, strides = (PATCH, PATCH, t, rows, tiles, c), (c, step[2], step[1], step[0], TILE * c, 1)
    patches = scratch("strip 1", shape).copy_(tall.as_strided(shape, strides, tall.storage_offset()))
    out = torch.mm(b, patches.view(PATCH, -1), out=scratch("strip 0", (PATCH, patches.numel() // PATCH)))
    return out.view(PATCH * PATCH, -1, c)


def products(v: Tensor, u: Tensor, frame: int, scratch) -> Tensor:
    """Patches v [36, (t + 2) * frame, c] times u [36, 3, o, c], summed over time -> [36, t * frame, o]."""
    n = v.shape[1] - 2 * frame
    out = scratch("strip 1", (len(v), n, u.shape[2]))
    for p in range(0, len(v), GROUP):
        m, vp, up = out[p : p + GROUP], v[p : p + GROUP], u[p : p + GROUP].mT
        torch.bmm(vp[:, :n], up[:, 0], out=m)
        for tap in (1, 2):
            m.baddbmm_(vp[:, tap * frame : tap * frame + n], up[:, tap])
    return out


def from_patches(m: Tensor, rows: int, tiles: int, scratch) -> Tensor:
    """Products [36, t * rows * tiles, o] -> pixels [t, 4 * rows, 4 * tiles, o]."""
    a, o = matrices()[0], m.shape[2]
    wide = torch.mm(a, m.view(PATCH, -1), out=scratch("strip 0", (TILE, m.numel() // PATCH)))
    wide = wide.view(TILE, PATCH, -1)
    both = torch.bmm(a.expand(TILE, -1, -1), wide, out=scratch("strip 1", (TILE, TILE, wide.shape[2])))
    both = rearrange(both, "x y (t r n o) -> t r y n x o", r=rows, n=tiles, o=o)
    return scratch("strip 0", both.shape).copy_(both).view(-1, rows * TILE, tiles * TILE, o)


def conv(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, add: bool, scratch) -> None:
    """Convolves x [b, t + 2, padded(h), padded(w), c] with weight [o, c, 3, 3, 3] into out [b, t, h, w, o].

    add: to what out holds. scratch(name, shape) gives reused memory. All float32, contiguous, on the CPU.
    """
    u = filters(weight, scratch)
    b, t, h, w, _ = out.shape
    tiles, all_rows = (x.shape[3] - 2) // TILE, (x.shape[2] - 2) // TILE
    rows = min(all_rows, max(1, STRIP_ROWS // (t * tiles)))
    one = PATCH + 1  # at the points (1, 1) a constant is the same constant in all 16 outputs
    for sample, top in ((s, r) for s in range(b) for r in range(0, all_rows, rows)):
        n = min(rows, all_rows - top)
        m = products(to_patches(x[sample], top, n, scratch), u, n * tiles, scratch)
        m[one] += bias
        y = from_patches(m, n, tiles, scratch)
        strip = out[sample, :, top * TILE : (top + n) * TILE]
        y = y[:, : strip.shape[1], :w]
        strip.add_(y) if add else strip.copy_(y)
