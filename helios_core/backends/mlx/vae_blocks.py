"""Blocks of the Wan 2.1 VAE. All take (x [b t h w c], stream) and return the same kind of x.

Unusual here:
- a clip is 1 + 4n frames for 1 + n latents: the first frame stands alone in time, at every level;
- modules keep nothing between blocks of frames, the caller's Stream does (vae_conv.py);
- module and parameter names are those of the published checkpoint (diffusers' AutoencoderKLWan);
- `width` is the number of channels that a module holds per pixel of its input, for cutting a clip into blocks.
"""

import mlx.core as mx
from einops import rearrange
from mlx import nn

from .vae_conv import Stream, causal_conv, conv, upsample_conv

EPS = 1e-24  # added to the squared norm, where the published norm is bounded from below by its root


class CausalConv3d(nn.Conv3d):
    """Parameters of a convolution that sees no later frame."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int | tuple[int, int, int]):
        super().__init__(in_dim, out_dim, kernel)
        self.width = max(in_dim, out_dim)

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        """Channels `in_dim` -> `out_dim`, the size as it was."""
        return causal_conv(x, self, stream)


class RMSNorm(nn.Module):
    """x / |x| * sqrt(dim) * gamma over the channels; gamma has `axes` trailing ones, as published."""

    def __init__(self, dim: int, axes: int = 3):
        super().__init__()
        self.gamma = mx.ones((dim, *[1] * axes))

    def __call__(self, x: mx.array) -> mx.array:
        """x [... c]; normalised in float32."""
        return mx.fast.rms_norm(x, self.gamma.flatten(), EPS / x.shape[-1])


class Head:
    """norm_out and conv_out as one layer; no module, for the checkpoint holds the two apart."""

    def __init__(self, norm: RMSNorm, out: CausalConv3d):
        self.norm, self.out, self.width = norm, out, out.width

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        """Norm, SiLU and convolution; the size as it was."""
        return causal_conv(x, self.out, stream, self.norm)


class ResidualBlock(nn.Module):
    """Two causal convolutions around a residual, each after norm and SiLU."""

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.norm1 = RMSNorm(in_dim)
        self.conv1 = CausalConv3d(in_dim, out_dim, 3)
        self.norm2 = RMSNorm(out_dim)
        self.conv2 = CausalConv3d(out_dim, out_dim, 3)
        self.conv_shortcut = CausalConv3d(in_dim, out_dim, 1) if in_dim != out_dim else None
        self.width = max(in_dim, out_dim)

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        """Channels `in_dim` -> `out_dim`, the size as it was."""
        h = causal_conv(x, self.conv1, stream, self.norm1)
        x = x if self.conv_shortcut is None else self.conv_shortcut(x, stream)
        return x + causal_conv(h, self.conv2, stream, self.norm2)


class AttentionBlock(nn.Module):
    """Self-attention within each frame, one head."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = RMSNorm(dim, axes=2)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.width = 3 * dim

    def attend(self, x: mx.array) -> mx.array:
        """One frame [b 1 h w c]; more at once would hold all their scores, which are (h w)^2."""
        h = x.shape[2]
        qkv = conv(self.norm(x), self.to_qkv.weight[:, None], self.to_qkv.bias)
        q, k, v = mx.split(rearrange(qkv, "b 1 h w c -> b 1 (h w) c"), 3, axis=-1)
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5)
        return conv(rearrange(out, "b 1 (h w) c -> b 1 h w c", h=h), self.proj.weight[:, None], self.proj.bias)

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        """Every frame plus its attention to itself."""
        return x + mx.concatenate([self.attend(frame) for frame in mx.split(x, x.shape[1], axis=1)], axis=1)


class Upsample(nn.Module):
    """Twice the height and width, half the channels; with `time` also twice the frames but the first."""

    def __init__(self, dim: int, time: bool):
        super().__init__()
        self.resample = [nn.Identity(), nn.Conv2d(dim, dim // 2, 3, padding=1)]
        self.time_conv = CausalConv3d(dim, 2 * dim, (3, 1, 1)) if time else None
        self.width = 2 * dim * (2 if time else 1)

    def double_frames(self, x: mx.array, stream: Stream) -> mx.array:
        """The clip's first frame passes and is no past to the others, which become two each."""
        if id(self.time_conv) in stream.past:
            return self.double(x, stream)
        first, x = x[:, :1], x[:, 1:]
        if x.shape[1]:
            return mx.concatenate([first, self.double(x, stream)], axis=1)
        stream.remember(self.time_conv, mx.zeros((first.shape[0], 2, *first.shape[2:]), first.dtype))
        return first

    def double(self, x: mx.array, stream: Stream) -> mx.array:
        """Two frames for each."""
        return rearrange(self.time_conv(x, stream), "b t h w (n c) -> b (t n) h w c", n=2)

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        """Twice h and w, half the channels; in time see the class."""
        if self.time_conv is not None:
            x = self.double_frames(x, stream)
        return upsample_conv(x, self.resample[1])


class Downsample(nn.Module):
    """Half the height and width; with `time` also half the frames after the first."""

    def __init__(self, dim: int, time: bool):
        super().__init__()
        self.resample = [nn.Identity(), nn.Conv2d(dim, dim, 3, stride=2)]
        self.time_conv = nn.Conv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1)) if time else None
        self.width = dim

    def halve_frames(self, x: mx.array, stream: Stream) -> mx.array:
        """Frames 0; 0 1 2; 2 3 4; ... become one each. What a window still needs stays in the stream."""
        past = stream.past.get(id(self))
        first = x[:, :1] if past is None else x[:, :0]
        x = x if past is None else mx.concatenate([past, x], axis=1)
        done = (x.shape[1] - 1) // 2
        stream.remember(self, x[:, 2 * done :])
        if not done:
            return first
        y = conv(x, self.time_conv.weight, self.time_conv.bias, stride=2)
        return mx.concatenate([first, y], axis=1) if past is None else y

    def __call__(self, x: mx.array, stream: Stream) -> mx.array:
        """Half h and w; in time see the class."""
        b = len(x)
        x = mx.pad(rearrange(x, "b t h w c -> (b t) h w c"), [(0, 0), (0, 1), (0, 1), (0, 0)])
        y = rearrange(self.resample[1](x), "(b t) h w c -> b t h w c", b=b)
        return y if self.time_conv is None else self.halve_frames(y, stream)


class MidBlock(nn.Module):
    """The names of the coarsest level's three layers."""

    def __init__(self, dim: int):
        super().__init__()
        self.resnets = [ResidualBlock(dim, dim) for _ in range(2)]
        self.attentions = [AttentionBlock(dim)]

    def layers(self) -> list[nn.Module]:
        """In order, each of (x, stream)."""
        return [self.resnets[0], self.attentions[0], self.resnets[1]]


class UpBlock(nn.Module):
    """`blocks` residual blocks, then an upsampler unless `time` is None (the last level)."""

    def __init__(self, in_dim: int, out_dim: int, blocks: int, time: bool | None):
        super().__init__()
        dims = [in_dim, *[out_dim] * blocks]
        self.resnets = [ResidualBlock(i, o) for i, o in zip(dims, dims[1:])]
        self.upsamplers = None if time is None else [Upsample(out_dim, time)]

    def layers(self) -> list[nn.Module]:
        """In order, each of (x, stream)."""
        return [*self.resnets, *(self.upsamplers or [])]
