"""How visible the joints between chunks are: the jump of a frame statistic at a joint against those inside the chunks.

Everything is measured on pixels: mean luma, contrast (standard deviation of luma), sharpness (mean gradient over
contrast, which a blur lowers and a darker picture does not) and plain difference of neighbouring frames.
"""

from __future__ import annotations

import numpy as np

LUMA = np.array([0.2126, 0.7152, 0.0722])  # BT.709
STATISTICS = ("luma", "contrast", "sharpness")


def frame_statistics(frames: np.ndarray) -> dict[str, np.ndarray]:
    """uint8 frames [t h w 3] -> luma, contrast and sharpness [t] each; luma and contrast in 0..1."""
    luma = frames @ LUMA / 255
    contrast = luma.std(axis=(1, 2))
    gradient = abs(np.diff(luma, axis=1)).mean(axis=(1, 2)) + abs(np.diff(luma, axis=2)).mean(axis=(1, 2))
    return {"luma": luma.mean(axis=(1, 2)), "contrast": contrast, "sharpness": gradient / np.maximum(contrast, 1e-6)}


def joints(frames: np.ndarray, chunk_frames: int = 33) -> dict[str, dict[str, float]]:
    """Per statistic: `jump`, the median relative change at the joints, and `inside`, that between other frames.

    "difference" is the mean absolute change of a pixel, 0..1. ValueError for a video without a joint.
    """
    if len(frames) <= chunk_frames:
        raise ValueError(f"{len(frames)} frames have no joint; wanted more than one chunk of {chunk_frames}")
    at = np.arange(chunk_frames, len(frames), chunk_frames) - 1
    changes = {name: abs(np.diff(s)) / np.maximum(s[:-1], 1e-6) for name, s in frame_statistics(frames).items()}
    video = frames.astype(np.float32) / 255
    changes["difference"] = np.array([abs(b - a).mean() for a, b in zip(video, video[1:])])
    return {
        name: {"jump": float(np.median(change[at])), "inside": float(np.median(np.delete(change, at)))}
        for name, change in changes.items()
    }
