"""How visible the joints between chunks are: the jump of a frame statistic at a joint against those inside the chunks.

Everything is measured on pixels: mean luma, contrast (standard deviation of luma), sharpness (mean gradient over
contrast, which a blur lowers and a darker picture does not) and plain difference of neighbouring frames.
"""

from __future__ import annotations

import numpy as np

LUMA = np.array([0.2126, 0.7152, 0.0722])  # BT.709


def frame_statistics(frames: np.ndarray, before: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """uint8 frames [t h w 3] -> luma, contrast, sharpness, difference, [t] each; all but sharpness in 0..1.

    difference: mean absolute change of a pixel since the frame before; of the first one since `before`, NaN if None.
    """
    luma = frames @ LUMA / 255
    contrast = luma.std(axis=(1, 2))
    gradient = abs(np.diff(luma, axis=1)).mean(axis=(1, 2)) + abs(np.diff(luma, axis=2)).mean(axis=(1, 2))
    video = frames.astype(np.float32) / 255
    changes = [abs(b - a).mean() for a, b in zip(video, video[1:])]
    first = np.nan if before is None else abs(video[0] - before.astype(np.float32) / 255).mean()
    return {
        "luma": luma.mean(axis=(1, 2)),
        "contrast": contrast,
        "sharpness": gradient / np.maximum(contrast, 1e-6),
        "difference": np.array([first, *changes]),
    }


def joints(statistics: dict[str, np.ndarray], chunk_frames: int = 33) -> dict[str, dict[str, float]]:
    """Per statistic of a whole video: `jump`, the median change at the joints, and `inside`, that between other frames.

    Changes are relative to the frame before, the difference is its own. ValueError for a video without a joint.
    """
    total = len(statistics["luma"])
    if total <= chunk_frames:
        raise ValueError(f"{total} frames have no joint; wanted more than one chunk of {chunk_frames}")
    at = np.arange(chunk_frames, total, chunk_frames) - 1
    found = {}
    for name, s in statistics.items():
        change = s[1:] if name == "difference" else abs(np.diff(s)) / np.maximum(s[:-1], 1e-6)
        found[name] = {"jump": float(np.median(change[at])), "inside": float(np.median(np.delete(change, at)))}
    return found
