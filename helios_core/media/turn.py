"""How a clip's frames are turned before they are shown: FFmpeg's display matrix as transpose and flips."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NUMBERS = 9
SKEW = 0.02  # as much as FFmpeg's own one degree


class Turn(NamedTuple):
    """Rows become columns first, then left and right, top and bottom change places."""

    transpose: bool = False
    mirror: bool = False
    flip: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of a frame once it is turned."""
        return (height, width) if self.transpose else (width, height)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """The frame [h w c] upright; a view."""
        frame = frame.swapaxes(0, 1) if self.transpose else frame
        return frame[:: -1 if self.flip else 1, :: -1 if self.mirror else 1]


def read_turn(frame, path) -> Turn:
    """Of a decoded frame. ValueError for angles that are no quarter turn."""
    matrix = display_matrix(frame)
    if matrix is None:
        return Turn()
    a, b, _, c, d = matrix[:5]  # x' = a x + c y, y' = b x + d y
    kept, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(abs(b), abs(c)) <= SKEW * kept:
        return Turn(False, a < 0, d < 0)
    if max(abs(a), abs(d)) <= SKEW * crossed:
        return Turn(True, c < 0, b < 0)
    raise ValueError(f"{path} is turned by an angle that is no quarter turn; turn it and write it anew")


def display_matrix(frame) -> tuple[int, ...] | None:
    """The nine numbers of ISO 14496-12, row by row; None if the frame is shown as it is."""
    from av.sidedata.sidedata import Type

    try:
        data = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # beside data of a type that this PyAV does not know, it hands on none
        return _quarter_turns(frame.rotation)
    found = None if data is None else tuple(np.frombuffer(bytes(data), np.int32)[:NUMBERS].tolist())
    return found if found and len(found) == NUMBERS and any(found[:5]) else None


def _quarter_turns(degrees: int) -> tuple[int, ...] | None:
    """The matrix that turns counterclockwise."""
    one = 1 << 16
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[round(degrees / 90) % 4]
    return (cosine * one, -sine * one, 0, sine * one, cosine * one, 0, 0, 0, 1 << 30) if degrees % 360 else None
