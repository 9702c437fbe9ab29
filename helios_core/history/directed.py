"""What a chunk is made to see of its past by a score: none after a cut, or one drawn toward a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from einops import pack

from ..resample import like
from .starts import begin
from .window import History


def toward_picture(helios, history: History, picture, strength: float, *, seed: int, encode=None) -> History:
    """What a chunk sees that is drawn toward a picture [1 h w 3]: its anchor and the newest frame it remembers, each
    that part of the way to what image to video would give it; 1 is all the way.

    It is for one chunk: the next goes on from the history as it was. encode: as `starts.begin` takes it. ValueError for
    what is no picture.
    """
    alone = replace(history.cut(), window=history.cut().window[:1])
    begun = begin(helios, alone, image=picture, encode=encode, seed=seed).repeat(history.shape[0])
    newest = _mixed(history.window[:, :, -1:], begun.window[:, :, -1:], strength)
    window = pack([history.window[:, :, :-1], newest], "b c * h w")[0]
    anchor = history.anchor
    if history.keep_first_frame:
        none = like(np.zeros(tuple(newest.shape), np.float32), newest)
        anchor = _mixed(none if anchor is None else anchor[:, :, :1], begun.anchor, strength)
    return replace(history, window=window, anchor=anchor)


def _mixed(one, two, strength: float):
    return two if strength == 1 else one + strength * (two - one)
