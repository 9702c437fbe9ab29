"""Convolutions of the Wan VAE, and the memory that makes them causal over blocks of frames.

One function per kind of convolution, each with a plain path, which every device can run and which has gradients,
and a CPU path for inference. What the CPU path gains, measured on 2 cores: activations lie as [b t h w c], so that
norms and oneDNN read whole pixels; norm, SiLU and the past frames go into one reused buffer; float32 is never left
to torch's own conv3d, which small inputs get and which is ten times slower than oneDNN; wide layers use Winograd's
products (winograd.py); and an upsampled image is never built (`upsample_conv`).
"""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from . import triton_ops, winograd
from .plain import activate

WINOGRAD_CHANNELS, WINOGRAD_PIXELS = 32, 1024  # below either, transforming costs more than it saves
IN_PLACE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
FOLDED_SIZE = 2_000_000  # numbers in what upsample_conv makes at once, for the cache


class Stream:
    """What one clip under way must remember: module -> its last input frames [b c t h w]. Never shared by two clips.

    Inference on a CPU also keeps its working memory here: fresh memory is slow, and many sizes of it fragment.
    """

    def __init__(self):
        self.past: dict[nn.Module, Tensor] = {}
        self.buffers: dict = {}

    def extend(self, key: nn.Module, x: Tensor, keep: int) -> Tensor:
        """x [b c t h w] after the frames remembered for `key`, or after `keep` zeros; remembers the last `keep`."""
        past = self.past.get(key)
        x = F.pad(x, (0, 0, 0, 0, keep, 0)) if past is None else torch.cat([past, x], dim=2)
        self.past[key] = x[:, :, -keep:].clone()
        return x

    def scratch(self, name, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uninitialised memory of that shape; the next call of that name overwrites it."""
        size = torch.Size(shape).numel()
        old = self.buffers.get(name)
        if old is None or not size <= old.numel() <= 4 * size:
            self.buffers.pop(name, None)
            self.buffers[name] = like.new_empty(size)
        return self.buffers[name][:size].view(shape)


def plain_cpu(x: Tensor) -> bool:
    """On the CPU and not under autocast, which would not see what is called below it."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def fused(x: Tensor, weight: Tensor) -> bool:
    """Whether the CPU path for inference may run: it works in place, so nobody may want a gradient."""
    return plain_cpu(x) and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))


def by_kernel(x: Tensor) -> bool:
    """Whether a GPU goes the same way: Triton's kernel is norm, SiLU and the place after the past frames in one pass.

    In 16 bits, which cuDNN convolves fastest with channels last.
    """
    return x.dtype != torch.float32 and triton_ops.usable("activate", x, x.dtype, x.shape[1])


def conv(x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Convolution in 2 or 3 dimensions; float32 on the CPU by oneDNN whatever the size."""
    if plain_cpu(x) and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        ones = (1,) * len(padding)
        return torch.mkldnn_convolution(x, weight, bias, padding, ones, ones, 1)
    return (F.conv2d if x.ndim == 4 else F.conv3d)(x, weight, bias, padding=padding)


def added(x: Tensor, weight: Tensor, bias: Tensor, add: Tensor | None) -> Tensor:
    """The 3x3x3 convolution of frames after their past, in `add` if there is one, plus what that holds; bfloat16 on the
    CPU in oneDNN's last pass, before it rounds."""
    if add is not None and IN_PLACE and plain_cpu(x) and x.dtype == torch.bfloat16:
        order = torch.channels_last_3d
        if add.is_contiguous(memory_format=order) and not torch.compiler.is_compiling():
            ones, how = [1, 1, 1], (1, "add", 1.0, None, [], None)
            return torch.ops.mkldnn._convolution_pointwise_.binary(add, x, weight, bias, [0, 1, 1], ones, ones, *how)
    y = conv(x, weight, bias, (0, 1, 1))
    return y if add is None else add.add_(y)


def causal_conv(x: Tensor, layer: nn.Conv3d, stream: Stream, norm=None, *, add=None, passing=False) -> Tensor:
    """Convolves silu(norm(x)), or x, with no later frame: zeros or the stream's past before the first.

    x [b c t h w] -> [b o t h w], plus `add`, which inference may overwrite with the result.
    passing: the result is only for the next call, which may overwrite it.
    """
    kt, kh, kw = layer.kernel_size
    if kt == kh == 3 and (fused(x, layer.weight) or norm is not None and by_kernel(x)):
        return fused_conv(x, layer, stream, norm, add, passing)
    x = x if norm is None else F.silu(norm(x))
    x = stream.extend(layer, x, kt - 1) if kt > 1 else x
    y = conv(x, layer.weight, layer.bias, (0, kh // 2, kw // 2))
    return y if add is None else y + add


def fused_conv(x: Tensor, layer: nn.Conv3d, stream: Stream, norm, add: Tensor | None, passing: bool) -> Tensor:
    """`causal_conv` with a 3x3x3 kernel, in memory that the stream reuses, [b t h w c]."""
    x = rearrange(x, "b c t h w -> b t h w c")
    (b, t, h, w, c), o = x.shape, layer.out_channels
    wide = plain_cpu(x) and x.dtype == torch.float32 and min(o, c) >= WINOGRAD_CHANNELS and t * h * w >= WINOGRAD_PIXELS
    full = stream.scratch("input", (b, *(winograd.padded(t, h, w) if wide else (t + 2, h, w)), c), x)
    inner = full[:, : t + 2, 1 : h + 1, 1 : w + 1] if wide else full
    if wide:
        for i, size in ((1, t + 2), (2, h + 1), (3, w + 1)):
            full.narrow(i, size, full.shape[i] - size).zero_()
        full[:, :, 0], full[:, :, :, 0] = 0, 0
    if (past := stream.past.get(layer)) is None:
        past = stream.past[layer] = rearrange(x.new_empty(b, 2, h, w, c), "b t h w c -> b c t h w")
        inner[:, :2].zero_()
    else:
        inner[:, :2] = rearrange(past, "b c t h w -> b t h w c")
    past = rearrange(past, "b c t h w -> b t h w c")
    if norm is None:
        inner[:, 2:].copy_(x)
    elif plain_cpu(x):
        activate(x, norm.gamma, inner[:, 2:])
    else:
        triton_ops.activate(x.contiguous(), norm.gamma.flatten(), inner[:, 2:])
    past.copy_(inner[:, t:])
    if not wide:
        return added(rearrange(full, "b t h w c -> b c t h w"), layer.weight, layer.bias, add)
    if add is None:
        y = stream.scratch("passing", (b, t, h, w, o), x) if passing else x.new_empty(b, t, h, w, o)
    else:
        y = rearrange(add, "b c t h w -> b t h w c")
    winograd.conv(full, layer.weight, layer.bias, y, add is not None, partial(stream.scratch, like=x))
    return rearrange(y, "b t h w c -> b c t h w")


def upsample_conv(x: Tensor, layer: nn.Conv2d, stream: Stream) -> Tensor:
    """The 3x3 convolution of x [n c h w], nearest-upsampled to twice its size -> [n o 2h 2w].

    Two of three taps fall on the same pixel, so each of the four output phases is a 2x2 convolution of x itself:
    4 multiplications where there were 9.
    """
    if not fused(x, layer.weight):
        return layer(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    (n, _, h, w), o = x.shape, layer.out_channels
    fold = x.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
    weight = torch.einsum("aiy,bjx,ocyx->abocij", fold, fold, layer.weight).flatten(0, 2)
    out = stream.scratch(layer, (n, h, 2, w, 2, o), x)
    few = max(1, FOLDED_SIZE // (4 * o * h * w))
    for part, to in zip(x.split(few), out.split(few)):
        y = conv(part, weight, layer.bias.repeat(4), (1, 1))
        y = rearrange(y, "n (a b o) h w -> a b n h w o", a=2, b=2)
        for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
            to[:, :, a, :, b] = y[a, b, :, a : a + h, b : b + w]
    return rearrange(out, "n h a w b o -> n o (h a) (w b)")
