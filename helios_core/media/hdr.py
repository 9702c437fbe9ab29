"""HDR and BT.2020 frames for a screen without them: PQ and HLG to light, wide colours to BT.709, highlights rolled off.

Light is counted in nits of a display of 1000, HLG's nominal one. Reference white, 203 nits, becomes 0.76 of the
screen's light (227 of 255); all up to half of it stays as it is, and what is beyond comes ever closer to white.
Sources: SMPTE ST 2084, ITU-R BT.2100 (transfer functions), BT.2087 (colours), BT.2408 (reference white).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

PQ, HLG, BT2020, BT2020_MATRIX, UNTAGGED = 16, 18, 9, 9, 2  # FFmpeg's numbers
PEAK, WHITE, KNEE = 1000.0, 203.0, 0.5
GAMMA = 2.4  # BT.1886
LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
LEVELS = np.clip(np.arange(1 << 16) / (255 * 256), 0, 1)  # of rgb48, of which 255 times 256 is white


def tone(transfer: int, primaries: int, matrix: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """What makes rgb48 [h w 3] uint8 for a BT.709 screen; None for what is for such a screen already."""
    wide = primaries == BT2020 or (primaries == UNTAGGED and matrix == BT2020_MATRIX)
    if transfer not in (PQ, HLG) and not wide:
        return None
    table = {PQ: pq_light, HLG: hlg_scene}.get(transfer, lambda level: level**GAMMA)(LEVELS).astype(np.float32)

    def convert(pixels: np.ndarray) -> np.ndarray:
        light = table[pixels]
        if transfer == HLG:
            light = light * (PEAK / WHITE) * np.maximum(light @ LUMA, 1e-6)[..., None] ** 0.2
        light = np.maximum(light @ TO_BT709.T if wide else light, 0)
        if transfer in (PQ, HLG):
            most = np.maximum(light.max(-1, keepdims=True), 1e-6)  # all three alike, or the hue would change
            light = light * (roll_off(most) / most)
        return np.rint(np.clip(light, 0, 1) ** (1 / GAMMA) * 255).astype(np.uint8)

    return convert


def pq_light(level: np.ndarray) -> np.ndarray:
    """ST 2084: signal 0 to 1 -> light, 1 at reference white."""
    root = level ** (1 / 78.84375)
    return 10000 / WHITE * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def hlg_scene(level: np.ndarray) -> np.ndarray:
    """BT.2100: signal 0 to 1 -> light of the scene, 0 to 1."""
    return np.where(level <= 0.5, level**2 / 3, (np.exp((level - 0.55991073) / 0.17883277) + 0.28466892) / 12)


def roll_off(light: np.ndarray) -> np.ndarray:
    """Up to the knee as it is; from there, with the same slope, to 1 at the peak."""
    peak = PEAK / WHITE
    slope = (peak - KNEE) / (1 - KNEE)
    way = np.clip((light - KNEE) / (peak - KNEE), 0, 1)
    return np.where(light <= KNEE, light, KNEE + (1 - KNEE) * slope * way / (1 + (slope - 1) * way))
