"""Decoded frames to RGB and back, within a rounding of what the numbers say.

By itself swscale truncates and repeats chroma samples: every read then darkens by 1 of 255, eight reads and writes by
9. Rounded, and with bicubic chroma at full width both ways, eight rounds change the mean by 0.1, and a pixel of a
smooth picture by 0.4; bilinear ones blur it by 5.
A filter graph is used, since the oldest PyAV of this pack cannot hand these flags to its own reformatter.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from . import hdr
from .container import square_size
from .turn import Turn, read_turn

FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
# FFmpeg's numbers of matrices, and the scale filter's names. Untagged files are read as FFmpeg does, as BT.601.
MATRICES = {1: "bt709", 2: "bt601", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
RGB, UNTAGGED, FULL_RANGE, LINEAR = 0, 2, 2, 8
ALWAYS_FULL = ("yuvj", "gray", "ya", "mono", "pal8")
STEP = 256  # rgb48 holds an 8-bit value times this


class _Graph:
    """Frames of one size and format in, frames of another out."""

    def __init__(self, width: int, height: int, pixel_format: str, scale: str, result: str):
        from av.filter import Graph

        self.graph = Graph()
        self.source = self.graph.add_buffer(
            width=width, height=height, format=pixel_format, time_base=Fraction(1, 1000)
        )
        filters = [self.graph.add("scale", f"flags={FLAGS}:{scale}"), self.graph.add("format", f"pix_fmts={result}")]
        self.sink = self.graph.add("buffersink")
        for one, other in zip([self.source, *filters], [*filters, self.sink]):
            one.link_to(other)
        self.graph.configure()

    def __call__(self, frame):
        self.source.push(frame)
        return self.sink.pull()


class Shown:
    """Frames of one stream -> uint8 [h w 3], upright, with square pixels, SDR; all of the first frame's size.

    What is transparent is shown over black. ValueError for colours that cannot be read.
    """

    def __init__(self, stream, path):
        self.stream, self.path = stream, path
        self.made_for, self.size, self.turn = None, None, Turn()

    def __call__(self, frame) -> np.ndarray:
        kind = (frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range))
        if kind != self.made_for:
            self._prepare(frame, *kind)
            self.made_for = kind
        pixels = self.convert(frame).to_ndarray()
        if self.tone is not None:
            pixels = self.tone(pixels)
        elif pixels.shape[2] == 4:
            pixels = over_black(pixels)
        return np.ascontiguousarray(self.turn(pixels))

    def _prepare(self, frame, name: str, width: int, height: int, matrix: int, color_range: int) -> None:
        if self.size is None:
            ratio = self.stream.sample_aspect_ratio
            self.size, self.turn = square_size(width, height, ratio, self.path), read_turn(frame, self.path)
        context, is_rgb = self.stream.codec_context, matrix == RGB or frame.format.is_rgb
        if not is_rgb and matrix not in MATRICES:
            raise ValueError(f"{self.path}: its colours are stored in a way ({matrix}) that is not read; convert it")
        if int(context.color_trc) == LINEAR:
            raise ValueError(f"{self.path}: holds linear light; convert it to sRGB or BT.709")
        self.tone = hdr.tone(int(context.color_trc), int(context.color_primaries), matrix)
        full = color_range == FULL_RANGE or is_rgb or name.startswith(ALWAYS_FULL)
        source = f"in_color_matrix={MATRICES.get(matrix, 'bt601')}:in_range={'full' if full else 'limited'}"
        result = "rgb48le" if self.tone else "rgba" if has_alpha(frame.format) else "rgb24"
        scale = f"w={self.size[0]}:h={self.size[1]}:{source}:out_range=full"
        self.convert = _Graph(width, height, name, scale, result)


def has_alpha(pixel_format) -> bool:
    """Whether frames of an av.VideoFormat can be transparent."""
    return pixel_format.name == "pal8" or any(component.is_alpha for component in pixel_format.components)


def over_black(pixels: np.ndarray) -> np.ndarray:
    """uint8 [h w 4] -> uint8 [h w 3]: what is transparent is black, as players show it."""
    seen = pixels[..., :3].astype(np.uint16) * pixels[..., 3:] + 127
    return (seen // 255).astype(np.uint8)


def to_planes(width: int, height: int):
    """A function from uint8 [h w 3] to av frames of yuv420p, BT.709, limited range."""
    import av

    scale = "in_range=full:out_color_matrix=bt709:out_range=limited"
    graph = _Graph(width, height, "rgb24", scale, "yuv420p")
    return lambda pixels: graph(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))
