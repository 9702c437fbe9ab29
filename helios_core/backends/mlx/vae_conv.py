"""Convolutions of the Wan VAE in MLX, and the memory that makes them causal over blocks of frames.

Inside, activations are [b t h w c] and kernels [o kt kh kw c], as MLX has them. No convolution over three axes is left
to MLX, which unfolds all 27 neighbours of every pixel at once (in versions older than its implicit Metal kernel, and
on CPUs): on a GPU each of the kernel's three frames is a two-dimensional convolution; on a CPU every tap is a matrix
product, measured at two to three times the speed of MLX's own convolutions there.
"""

import mlx.core as mx
from einops import rearrange
from mlx import nn


class Stream:
    """What one clip under way must remember: layer -> its last input frames [b t h w c]. Never shared by two clips.

    Layers are MLX modules, which do not hash, so their id stands for them; the clip's network outlives its stream.
    """

    def __init__(self):
        self.past: dict[int, mx.array] = {}

    def extend(self, layer, x: mx.array, keep: int) -> mx.array:
        """x [b t h w c] after the frames remembered for `layer`, or after `keep` zeros; remembers the last `keep`."""
        past = self.past.get(id(layer))
        if past is None:
            past = mx.zeros((x.shape[0], keep, *x.shape[2:]), x.dtype)
        x = mx.concatenate([past, x], axis=1)
        self.remember(layer, x[:, -keep:])
        return x

    def remember(self, layer, x: mx.array) -> None:
        """A copy, for a slice would hold the whole block's memory."""
        self.past[id(layer)] = mx.contiguous(x)


def on_cpu() -> bool:
    """Whether MLX computes on the CPU, whose own convolutions are slow."""
    return mx.default_device() == mx.Device(mx.cpu)


def by_taps(x: mx.array, kernel: mx.array, bias: mx.array, stride: int) -> mx.array:
    """`conv` as one matrix product per tap, each added to the last, so that one at a time is in memory; float32."""
    x, kernel, y = (a.astype(mx.float32) for a in (x, kernel, bias))
    # A transposed matrix halves the speed of MLX's product on a CPU.
    kernel = mx.contiguous(rearrange(kernel, "o t h w c -> t h w c o"))
    kt, kh, kw, _, _ = kernel.shape
    t, h, w = (x.shape[1] - kt) // stride + 1, x.shape[2], x.shape[3]
    x = mx.pad(x, [(0, 0), (0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)]) if kh * kw > 1 else x
    for k in range(kt):
        frames = x[:, k : k + stride * (t - 1) + 1 : stride]
        for i in range(kh):
            for j in range(kw):
                y = mx.addmm(y, frames[:, :, i : i + h, j : j + w], kernel[k, i, j])
    return y


def by_frames(x: mx.array, kernel: mx.array, bias: mx.array, stride: int) -> mx.array:
    """`conv` as one two-dimensional convolution per frame of the kernel."""
    _, kt, kh, kw, _ = kernel.shape
    b, t = x.shape[0], (x.shape[1] - kt) // stride + 1
    y = bias
    for k in range(kt):
        frames = rearrange(x[:, k : k + stride * (t - 1) + 1 : stride], "b t h w c -> (b t) h w c")
        y = y + mx.conv2d(frames, kernel[:, k], padding=(kh // 2, kw // 2))
    return rearrange(y, "(b t) h w o -> b t h w o", b=b)


def conv(x: mx.array, kernel: mx.array, bias: mx.array, stride: int = 1) -> mx.array:
    """x [b t h w c] with kernel [o kt kh kw c] -> [b (t - kt) // stride + 1 h w o]; zeros around height and width."""
    run = by_taps if on_cpu() else by_frames
    return run(x, kernel, bias, stride).astype(x.dtype)


def causal_conv(x: mx.array, layer: nn.Conv3d, stream: Stream, norm=None) -> mx.array:
    """Convolves silu(norm(x)), or x, with no later frame: zeros or the stream's past before the first."""
    x = x if norm is None else nn.silu(norm(x))
    kt = layer.weight.shape[1]
    x = stream.extend(layer, x, kt - 1) if kt > 1 else x
    return conv(x, layer.weight, layer.bias)


def upsample_conv(x: mx.array, layer: nn.Conv2d) -> mx.array:
    """The 3x3 convolution of x [b t h w c], nearest-upsampled to twice its size -> [b t 2h 2w o]."""
    b, t, h, w, c = x.shape
    x = mx.broadcast_to(x[:, :, :, None, :, None], (b, t, h, 2, w, 2, c))
    return conv(x.reshape(b, t, 2 * h, 2 * w, c), layer.weight[:, None], layer.bias)
