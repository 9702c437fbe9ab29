"""Clips as cameras and other programs write them: turned, with covers, tags, gaps, sound; and frames to know again."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ONE = 1 << 16
IDENTITY = (1, 0, 0, 1)
TURNS = {  # a, b, c, d of the display matrix -> what numpy makes of a frame
    IDENTITY: lambda x: x,
    (-1, 0, 0, 1): lambda x: x[:, ::-1],
    (1, 0, 0, -1): lambda x: x[::-1],
    (-1, 0, 0, -1): lambda x: x[::-1, ::-1],
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),  # a telephone held upright
    (0, -1, 1, 0): lambda x: np.rot90(x),
    (0, 1, 1, 0): lambda x: x.swapaxes(0, 1),
    (0, -1, -1, 0): lambda x: np.rot90(x, 2).swapaxes(0, 1),
}


def corners(count: int = 5, width: int = 64, height: int = 48) -> np.ndarray:
    """uint8 [count h w 3]: four corners of different colours on grey."""
    frames = np.full((count, height, width, 3), 90, np.uint8)
    h, w = height // 3, width // 3
    frames[:, :h, :w], frames[:, :h, -w:] = (230, 30, 30), (30, 200, 30)
    frames[:, -h:, :w], frames[:, -h:, -w:] = (30, 30, 220), (220, 220, 40)
    return frames


def numbered(count: int, width: int = 96, height: int = 32) -> np.ndarray:
    """uint8 [count h w 3]: eight bars, which are each frame's number in binary."""
    bits = (np.arange(count)[:, None] >> np.arange(8)) & 1
    bars = np.repeat(40 + 180 * bits, width // 8, axis=1)
    return np.broadcast_to(bars[:, None, :, None], (count, height, width, 3)).astype(np.uint8)


def uneven() -> tuple[list[int], list[int]]:
    """(times in 1/1000 seconds of 24 frames, every fourth of which stays three times as long; the frame shown at each
    24th of a second)."""
    times = np.cumsum([0, *[125 if i % 4 == 3 else 1000 / 24 for i in range(23)]]).round().astype(int).tolist()
    return times, [i for i in range(24) for _ in range(3 if i % 4 == 3 and i < 23 else 1)]


def numbers(frames) -> list[int]:
    """Which frames of `numbered` these are."""
    return [int((frame.mean((0, 2)).reshape(8, -1).mean(1) > 128) @ (1 << np.arange(8))) for frame in frames]


def smooth(width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 [h w 3] of soft colours, all inside what limited range holds."""
    from PIL import Image

    drawn = np.random.default_rng(seed).integers(50, 205, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(drawn).resize((width, height), Image.Resampling.BICUBIC))


def write(
    path: Path, frames: np.ndarray, *, fps=24, pts: list[int] | None = None, pixel_format="yuv420p", **codec
) -> Path:
    """frames uint8 [f h w 3], or uint16 RGB for deeper formats, as H.264 with B-frames as other encoders write it.

    pts: of every frame, in 1/1000 seconds. codec: attributes of the codec context, such as colorspace.
    """
    with av.open(str(path), "w") as file:
        add(file, frames, fps=fps, pts=pts, pixel_format=pixel_format, **codec)()
    return path


def add(file, frames, *, fps=24, pts=None, pixel_format="yuv420p", **codec):
    """A stream in an open container, and a function that fills it."""
    stream = file.add_stream("libx264", rate=fps, options={"crf": "8", "preset": "veryfast"})
    stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel_format
    stream.codec_context.time_base = Fraction(1, 1000) if pts else 1 / Fraction(fps)
    for name, value in codec.items():
        setattr(stream.codec_context, name, value)
    source = "rgb24" if frames.dtype == np.uint8 else "rgb48le"

    def fill():
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=source)
            frame = frame.reformat(format=pixel_format, dst_colorspace=codec.get("colorspace", 5))
            frame.pts, frame.time_base = pts[i] if pts else i, stream.codec_context.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())

    return fill


def turn(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """Writes a display matrix into the file's first track, as cameras do."""
    data, (a, b, c, d) = bytearray(path.read_bytes()), (round(ONE * n) for n in matrix)
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def tone(seconds: float, rate: int = 44100, start: float = 0.0) -> np.ndarray:
    """float32 [2 n]: 440 Hz left, half as loud right; silent until `start`."""
    time = np.arange(round(seconds * rate)) / rate
    wave = np.where(time >= start, 0.5 * np.sin(2 * np.pi * 440 * time), 0)
    return np.stack([wave, wave / 2]).astype(np.float32)


def planes(pixels: np.ndarray, pixel_format: str, matrix: int, full: bool):
    """One frame whose numbers are what the standard says of float RGB [h w 3] in 0 to 1; 4:4:4 only."""
    kr, kb = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    bits = 10 if "10" in pixel_format else 8
    most, scale, kind = 2**bits - 1, 2 ** (bits - 8), np.uint8 if bits == 8 else np.uint16
    r, g, b = np.moveaxis(pixels, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    zero, light, colour = (0, most, most) if full else (16 * scale, 219 * scale, 224 * scale)
    levels = (zero + y * light, 128 * scale + u * colour, 128 * scale + v * colour)
    out = [np.rint(level).clip(0, most).astype(kind) for level in levels]
    frame = av.VideoFrame(pixels.shape[1], pixels.shape[0], pixel_format)
    for plane, values in zip(frame.planes, out):
        row = plane.line_size // values.itemsize
        padded = np.zeros((values.shape[0], row), kind)
        padded[:, : values.shape[1]] = values
        plane.update(padded.tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame
