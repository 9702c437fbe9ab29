"""3x3x3 convolution in a sixth of the multiplications: Winograd's F(4x4, 3x3) in space, F(2, 3) in time.

On a CPU without matrix units a float32 convolution is bound by its multiplications, so oneDNN's direct kernel,
which already runs at the machine's ceiling, can only be passed by multiplying less. In one dimension m outputs are
A' [(G w) * (B' x)] with x their m + 2 inputs and w the 3 taps: m + 2 products instead of 3m (Lavin and Gray 2015,
eq. 5). Nested in three dimensions, 4 x 4 pixels x 2 frames take 144 products for 864; each product is a matrix
product over channels. The transforms are small matrix products over long rows. Work goes through few reused
buffers in strips of the frame, since memory that was never touched costs more than the arithmetic on it.

The points of evaluation in space, 0, 1, -1, 2, -1/2, infinity, are those of least error for random data among small
fractions: a layer's output is exact to about 1.5e-6 of its norm, where the direct convolution has 3e-7.
"""

from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

POINTS = (0.0, 1.0, -1.0, 2.0, -0.5)
TILE, PATCH, TAPS = 4, 6, 3
INSTANTS = 4  # products in time, for a pair of frames
STRIP_ROWS = 320  # rows of one matrix product: enough for its full speed, few enough for the cache
GROUP = 4  # positions in the patch at a time, so that what they have in time stays in the cache


@cache
def matrices() -> tuple[Tensor, Tensor, Tensor]:
    """A' [4, 6], G [6, 3], B' [6, 6] of Cook and Toom for POINTS and infinity, float32."""
    p = torch.tensor(POINTS, dtype=torch.float64)
    others = [torch.cat([p[:i], p[i + 1 :]]) for i in range(len(p))]

    def powers(n: int) -> Tensor:
        infinity = torch.eye(n, dtype=torch.float64)[-1:]
        return torch.cat([p[:, None] ** torch.arange(n), infinity])

    scale = torch.stack([(x - other).prod() for x, other in zip(p, others)] + [torch.ones_like(p[0])])
    b = torch.stack([F.pad(c, (0, PATCH - len(c))) for c in map(polynomial, [*others, p])])
    return powers(TILE).T.float().contiguous(), (powers(TAPS) / scale[:, None]).float(), b.float()


def polynomial(roots: Tensor) -> Tensor:
    """Coefficients, lowest first, of the product of (x - root)."""
    c = torch.ones_like(roots[:1])
    for root in roots:
        c = F.pad(c, (1, 0)) - root * F.pad(c, (0, 1))
    return c


def padded(t: int, h: int, w: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the input for an output of t, h, w: whole tiles, and what a kernel reaches over."""
    return t + t % 2 + 2, -(-h // TILE) * TILE + 2, -(-w // TILE) * TILE + 2


def filters(weight: Tensor, scratch) -> Tensor:
    """Weight [o, c, 3, 3, 3] -> [36, 4, o, c], the 36 positions column by column."""
    o, c = weight.shape[:2]
    first, middle, last = rearrange(weight, "o c t y x -> t (o c) x y")
    taps = scratch("strip 0", (INSTANTS, o * c, TAPS, TAPS))
    taps[0], taps[3] = first, last
    half = torch.add(first, last, out=taps[2]).mul_(0.5)
    torch.add(half, middle, alpha=0.5, out=taps[1])
    half.sub_(middle, alpha=0.5)
    g = torch.kron(matrices()[1], matrices()[1])
    out = torch.mm(g, taps.view(-1, TAPS * TAPS).T, out=scratch("filters", (PATCH * PATCH, INSTANTS * o * c)))
    return out.view(-1, INSTANTS, o, c)


def to_patches(x: Tensor, top: int, rows: int, scratch) -> Tensor:
    """x [t, y, x, c] -> patches, transformed in space, [36, t, rows * tiles * c]: `rows` rows of tiles from `top`."""
    t, _, width, c = x.shape
    tiles, b = (width - 2) // TILE, matrices()[2]
    tall = scratch("strip 0", (rows, t, PATCH, width * c))
    for row in range(rows):
        y = (top + row) * TILE
        torch.bmm(b.expand(t, -1, -1), x[:, y : y + PATCH].flatten(2), out=tall[row])
    step = tall.stride()
    shape, strides = (PATCH, PATCH, t, rows, tiles, c), (c, step[2], step[1], step[0], TILE * c, 1)
    patches = scratch("strip 1", shape).copy_(tall.as_strided(shape, strides, tall.storage_offset()))
    out = torch.mm(b, patches.view(PATCH, -1), out=scratch("strip 0", (PATCH, patches.numel() // PATCH)))
    return out.view(PATCH * PATCH, t, -1)


def products(v: Tensor, u: Tensor, scratch) -> Tensor:
    """Patches v [36, t + 2, n * c] times u [36, 4, o, c], with the transforms in time -> [36, t, n * o]."""
    o, c = u.shape[2:]
    pairs, n = v.shape[1] // 2 - 1, v.shape[2] // c
    out = scratch("strip 1", (len(v), pairs, 2, n * o))
    for p in range(0, len(v), GROUP):
        x0, x1, x2, x3 = (v[p : p + GROUP, i : i + 2 * pairs - 1 : 2] for i in range(4))
        x = scratch("in time", (GROUP, INSTANTS, pairs, n * c))
        torch.sub(x0, x2, out=x[:, 0])
        torch.add(x1, x2, out=x[:, 1])
        torch.sub(x2, x1, out=x[:, 2])
        torch.sub(x1, x3, out=x[:, 3])
        m = scratch("out time", (GROUP * INSTANTS, pairs * n, o))
        torch.bmm(x.view(GROUP * INSTANTS, -1, c), u[p : p + GROUP].flatten(0, 1).mT, out=m)
        m, y = m.view(GROUP, INSTANTS, pairs, -1), out[p : p + GROUP]
        torch.add(m[:, 0], m[:, 1], out=y[:, :, 0]).add_(m[:, 2])
        torch.sub(m[:, 1], m[:, 2], out=y[:, :, 1]).sub_(m[:, 3])
    return out.view(len(v), 2 * pairs, -1)


def from_patches(m: Tensor, rows: int, tiles: int, scratch) -> Tensor:
    """Products [36, t, rows * tiles * o] -> pixels [t, 4 * rows, 4 * tiles, o]."""
    a, t = matrices()[0], m.shape[1]
    wide = torch.mm(a, m.view(PATCH, -1), out=scratch("strip 0", (TILE, m.numel() // PATCH)))
    wide = wide.view(TILE, PATCH, -1)
    both = torch.bmm(a.expand(TILE, -1, -1), wide, out=scratch("strip 1", (TILE, TILE, wide.shape[2])))
    both = rearrange(both, "x y (t r n o) -> t r y n x o", t=t, r=rows, n=tiles)
    return scratch("strip 0", both.shape).copy_(both).view(t, rows * TILE, tiles * TILE, -1)


def conv(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, add: bool, scratch) -> None:
    """Convolves x [b, *padded(t, h, w), c] with weight [o, c, 3, 3, 3] into out [b, t, h, w, o].

    add: to what out holds. scratch(name, shape) gives reused memory. All float32 on the CPU, x contiguous.
    """
    u = filters(weight, scratch)
    b, t, _, w, _ = out.shape
    all_rows, tiles = (x.shape[2] - 2) // TILE, (x.shape[3] - 2) // TILE
    rows = min(all_rows, max(1, round(STRIP_ROWS / (tiles * (x.shape[1] // 2 - 1)))))
    one = PATCH + 1  # at the points (1, 1) a constant is that constant in all 16 pixels
    for sample, top in ((s, r) for s in range(b) for r in range(0, all_rows, rows)):
        n = min(rows, all_rows - top)
        m = products(to_patches(x[sample], top, n, scratch), u, scratch)
        m[one].view(-1, len(bias)).add_(bias)
        strip = out[sample, :, top * TILE : (top + n) * TILE]
        y = from_patches(m, n, tiles, scratch)[:t, : strip.shape[1], :w]
        strip.add_(y) if add else strip.copy_(y)
