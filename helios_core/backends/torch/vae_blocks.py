"""Blocks of the Wan 2.1 VAE. All take (x [b c t h w], stream) and return the same kind of x.

Unusual here:
- a clip is 1 + 4n frames for 1 + n latents: the first frame stands alone in time, at every level;
- modules keep nothing between blocks of frames, the caller's Stream does (vae_conv.py);
- module and parameter names are those of the published checkpoint (diffusers' AutoencoderKLWan);
- `width` is the number of channels that a module holds per pixel of its input, for cutting a clip into blocks.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .vae_conv import Stream, causal_conv, upsample_conv


class CausalConv3d(nn.Conv3d):
    """Parameters of a convolution that sees no later frame."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int | tuple[int, int, int]):
        super().__init__(in_dim, out_dim, kernel)
        self.width = max(in_dim, out_dim)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Channels `in_dim` -> `out_dim`, the size as it was."""
        return causal_conv(x, self, stream)


class RMSNorm(nn.Module):
    """x / |x| * sqrt(dim) * gamma over the channels; gamma has `axes` trailing ones, as published."""

    def __init__(self, dim: int, axes: int = 3):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        """x [b c ...]; normalised in float32."""
        unit = F.normalize(x.float(), dim=1).to(x.dtype)
        return unit * x.shape[1] ** 0.5 * self.gamma


class Head:
    """norm_out and conv_out as one layer; no module, for the checkpoint holds the two apart."""

    def __init__(self, norm: RMSNorm, out: CausalConv3d):
        self.norm, self.out, self.width = norm, out, out.width

    def __call__(self, x: Tensor, stream: Stream) -> Tensor:
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

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Channels `in_dim` -> `out_dim`, the size as it was."""
        h = causal_conv(x, self.conv1, stream, self.norm1, passing=True)
        x = x if self.conv_shortcut is None else self.conv_shortcut(x, stream)
        return causal_conv(h, self.conv2, stream, self.norm2, add=x)


class AttentionBlock(nn.Module):
    """Self-attention within each frame, one head."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = RMSNorm(dim, axes=2)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.width = 3 * dim

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Every frame plus its attention to itself."""
        b, _, _, h, w = x.shape
        frames = self.norm(rearrange(x, "b c t h w -> (b t) c h w"))
        q, k, v = rearrange(self.to_qkv(frames), "f (n c) h w -> n f 1 (h w) c", n=3)
        out = rearrange(F.scaled_dot_product_attention(q, k, v), "f 1 (h w) c -> f c h w", h=h, w=w)
        return x + rearrange(self.proj(out), "(b t) c h w -> b c t h w", b=b)


class Upsample(nn.Module):
    """Twice the height and width, half the channels; with `time` also twice the frames but the first."""

    def __init__(self, dim: int, time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), nn.Conv2d(dim, dim // 2, 3, padding=1))
        self.time_conv = CausalConv3d(dim, 2 * dim, (3, 1, 1)) if time else None
        self.width = 2 * dim * (2 if time else 1)

    def double_frames(self, x: Tensor, stream: Stream) -> Tensor:
        """The clip's first frame passes and is no past to the others, which become two each."""
        first, x = x.tensor_split((0 if self.time_conv in stream.past else 1,), dim=2)
        if x.shape[2] == 0:
            stream.past[self.time_conv] = torch.zeros_like(first).expand(-1, -1, 2, -1, -1)
            return first
        x = self.time_conv(x, stream)
        if x.dtype == torch.float32:
            return torch.cat([first, rearrange(x, "b (n c) t h w -> b c (t n) h w", n=2)], dim=2)
        x = rearrange(x, "b (n c) t h w -> b (t n) h w c", n=2)  # channels stay last
        return torch.cat([first, rearrange(x, "b t h w c -> b c t h w")], dim=2)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Twice h and w, half the channels; in time see the class."""
        if self.time_conv is not None:
            x = self.double_frames(x, stream)
        y = upsample_conv(rearrange(x, "b c t h w -> (b t) c h w"), self.resample[1], stream)
        return rearrange(y, "(b t) c h w -> b c t h w", b=len(x))


class Downsample(nn.Module):
    """Half the height and width; with `time` also half the frames after the first."""

    def __init__(self, dim: int, time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(dim, dim, 3, stride=2))
        self.time_conv = nn.Conv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1)) if time else None
        self.width = dim

    def halve_frames(self, x: Tensor, stream: Stream) -> Tensor:
        """Frames 0; 0 1 2; 2 3 4; ... become one each. What a window still needs stays in the stream."""
        past = stream.past.get(self)
        first = x[:, :, :1] if past is None else x[:, :, :0]
        x = x if past is None else torch.cat([past, x], dim=2)
        done = (x.shape[2] - 1) // 2
        stream.past[self] = x[:, :, 2 * done :].clone()
        return torch.cat([first, self.time_conv(x)], dim=2) if done else first

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Half h and w; in time see the class."""
        y = self.resample(rearrange(x, "b c t h w -> (b t) c h w"))
        y = rearrange(y, "(b t) c h w -> b c t h w", b=len(x))
        return y if self.time_conv is None else self.halve_frames(y, stream)


class MidBlock(nn.Module):
    """The names of the coarsest level's three layers."""

    def __init__(self, dim: int):
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(dim, dim) for _ in range(2))
        self.attentions = nn.ModuleList([AttentionBlock(dim)])

    def layers(self) -> list[nn.Module]:
        """In order, each of (x, stream)."""
        return [self.resnets[0], self.attentions[0], self.resnets[1]]


class UpBlock(nn.Module):
    """`blocks` residual blocks, then an upsampler unless `time` is None (the last level)."""

    def __init__(self, in_dim: int, out_dim: int, blocks: int, time: bool | None):
        super().__init__()
        dims = [in_dim, *[out_dim] * blocks]
        self.resnets = nn.ModuleList(ResidualBlock(i, o) for i, o in zip(dims, dims[1:]))
        self.upsamplers = None if time is None else nn.ModuleList([Upsample(out_dim, time)])

    def layers(self) -> list[nn.Module]:
        """In order, each of (x, stream)."""
        return [*self.resnets, *(self.upsamplers or [])]
