"""What the probe found, as a table and as pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from . import plots
from .probe import CURVE, Findings

# Dark to bright, of rising lightness, so that it reads without colours too.
SCALE = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=float)
NOISE = 0.1  # of the heat map
MAP_SIDE = 420  # pixels of its longer side, about
EDGE = 1.0  # decibels whose loss is reported


def first_loss(found: Findings, loss: float = EDGE) -> float | None:
    """Relative noise at which PSNR has fallen by `loss` dB; between two levels on a straight line. None: at none."""
    fallen = np.array(found.psnr) - found.psnr[0] + loss
    for i in range(1, len(CURVE)):
        if fallen[i] <= 0:
            return float(CURVE[i - 1] + (CURVE[i] - CURVE[i - 1]) * fallen[i - 1] / (fallen[i - 1] - fallen[i]))
    return None


def table(found: Findings, name: str = "VAE") -> str:
    """For people: noise against PSNR, then a line per channel, then their means."""
    edge = first_loss(found)
    limit = f"more than {100 * CURVE[-1]:.0f} %" if edge is None else f"{100 * edge:.1f} %"
    lines = [
        f"{name}: the first {EDGE:g} dB is lost at {limit} noise (of each channel's spread)",
        "noise             " + "".join(f"{100 * level:>8.0f} %" for level in CURVE),
        "PSNR, dB          " + "".join(f"{v:>10.2f}" for v in found.psnr),
        "to the clean, dB  " + "".join(f"{v:>10.2f}" for v in found.kept),
    ]
    if found.sampled is not None:
        lines.append(f"a sample of the posterior: {found.sampled:.2f} dB")
    lines += ["", "channel    spread     sigma    SNR dB           T   +-    sigma at balance   of spread"]
    lines += [_line(str(channel), found, channel) for channel in range(len(found.std))]
    lines += [f"balance: sigma = (weight / T)^(1/4) with weight {found.weight:g}"]
    return "\n".join(lines)


def _line(name: str, found: Findings, c: int) -> str:
    sigma, snr = ("-", "-") if found.sigma is None else (f"{found.sigma[c]:.4g}", f"{found.snr[c]:.1f}")
    balance, spread = found.equilibrium[c], max(found.std[c], 1e-30)
    return (
        f"{name:>7}{found.std[c]:>10.4f}{sigma:>10}{snr:>10}{found.sensitivity[c]:>12.4g}{found.error[c]:>9.2g}"
        f"{balance:>13.4g}{balance / spread:>12.3f}"
    )


def rows(found: Findings) -> list[dict]:
    """The table's channels as numbers, for a CSV file."""
    none = np.full(len(found.std), np.nan)
    columns = {
        "spread": found.std,
        "sigma": none if found.sigma is None else found.sigma,
        "snr_db": none if found.snr is None else found.snr,
        "sensitivity": found.sensitivity,
        "error": found.error,
        "balance": found.equilibrium,
    }
    return [{"channel": c, **{k: float(v[c]) for k, v in columns.items()}} for c in range(len(found.std))]


def heat_map(found: Findings) -> Image.Image:
    """The first piece's map in the picture's size: where noise shows most, bright."""
    field = found.pixel_rms
    low, high = float(field.min()), float(field.max())
    place = (field - low) / (high - low or 1.0) * (len(SCALE) - 1)
    at = np.clip(place.astype(int), 0, len(SCALE) - 2)
    part = (place - at)[..., None]
    colours = (SCALE[at] * (1 - part) + SCALE[at + 1] * part).round().astype(np.uint8)
    h, w = found.frame.shape[:2]
    return Image.fromarray(colours).resize((w, h), Image.Resampling.NEAREST)


def picture(found: Findings) -> Image.Image:
    """The sheet: picture and heat map, PSNR against noise, and per channel sensitivity and sigma."""
    names = [str(c) for c in range(len(found.std))]
    spread = np.maximum(found.std, 1e-30)
    relative = found.std**2 * found.sensitivity
    sigmas = {} if found.sigma is None else {"now": found.sigma / spread}
    sigmas["at balance"] = found.equilibrium / spread
    top = [_beside(found), _curves(found)]
    wide = (max(sum(p.width for p in top) + 8, 44 * len(names) + 80), 260)
    shares = plots.bar_plot({"T x spread^2": relative / relative.mean()}, names, "sensitivity, of the mean", size=wide)
    return plots.sheet([top, [shares], [plots.bar_plot(sigmas, names, "posterior sigma over spread", size=wide)]])


def _curves(found: Findings) -> Image.Image:
    curves = {"to the picture": found.psnr, "to its clean decoding": (np.nan, *found.kept[1:])}
    values = [v for line in curves.values() for v in line if np.isfinite(v)]
    low, high = plots.padded(min(values), max(values))
    return plots.line_plot(
        curves,
        "PSNR, dB",
        x=[100 * level for level in CURVE],
        x_label="noise, % of each channel's spread",
        limits=(low, high + 0.2 * (high - low)),  # the names stand above the lines
        size=(480, 400),
    )


def _beside(found: Findings) -> Image.Image:
    """The picture and its heat map side by side, with what the colours mean."""
    h, w = found.frame.shape[:2]
    scale = MAP_SIDE / max(h, w)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    page = Image.new("RGB", (2 * size[0] + 8, size[1] + 40), plots.PAPER)
    draw = ImageDraw.Draw(page)
    for x, part in ((0, Image.fromarray(found.frame)), (size[0] + 8, heat_map(found))):
        page.paste(part.resize(size, Image.Resampling.NEAREST), (x, 20))
    levels = [127.5 * NOISE * float(v) for v in (found.pixel_rms.min(), found.pixel_rms.max())]
    draw.text((0, 3), "first picture", fill=plots.INK, font=plots.font(12))
    words = f"what {100 * NOISE:.0f} % noise moves: {levels[0]:.3g} (dark) to {levels[1]:.3g} of 255"
    draw.text((0, size[1] + 23), words, fill=plots.INK, font=plots.font(12))
    return page
