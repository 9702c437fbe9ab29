"""Pictures read with Pillow: turned as their EXIF says, in sRGB, 8 bits of whatever depth, transparency over black.

Players show transparent pixels over black, so here too; `read_layers` keeps the two apart, as ComfyUI's LoadImage does.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from .colour import over_black
from .hdr import HLG, PQ
from .profile import in_srgb

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".gif")
# Not all that Pillow knows: EPS starts another program, MPEG and others are stubs. HEIF is there once pillow-heif is.
FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "JPEG2000"),
    *("PPM", "TGA", "ICO", "PCX", "QOI", "SGI", "PSD", "DDS"),
)
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # other formats' further frames are pages, or thumbnails
STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
MATROSKA = b"\x1aE\xdf\xa3"
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
# What Pillow's readers raise for damaged files.
FAILS = (OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, struct.error, zlib.error)
UNREADABLE = (OSError, ValueError)  # what all of this room raises
WHOLE = 65535  # white of 16 bits
OVERSHOOT = 1.5  # floats are 0 (black) to 1 (white); sharpened pictures go a little beyond
LEAST = Fraction(1, 100)  # seconds that a picture of an animation stays; browsers make 1/10 of 0 and 1/100
ZERO = Fraction(1, 10)
HEAD = 1 << 16  # bytes in which a file says how its colours are meant


def is_picture(path) -> bool:
    """Whether the file is a picture or an animation by its content, readable or not. ValueError if there is none."""
    head = _head(path)
    if head[:4] == MATROSKA or (head[4:8] == b"ftyp" and head[8:12] not in STILL_BRANDS):
        return False  # Pillow need not be asked
    try:
        with _opened(path):
            return True
    except ValueError:
        return _looks_still(path)


def read_layers(path) -> tuple[np.ndarray, np.ndarray | None]:
    """(uint8 [h w 3], uint8 [h w] or None): colours as stored, and how much is seen of them. ValueError."""
    with _opened(path) as image:
        return _guarded(path, _layers, image, path)


def over_black_picture(path) -> np.ndarray:
    """uint8 [h w 3] of a picture, or the first one of an animation. ValueError, with the file's name."""
    return _over_black(*read_layers(path))


def _over_black(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    return pixels if alpha is None else over_black(np.dstack([pixels, alpha]))


def iter_animation(path) -> Iterator[tuple[np.ndarray, Fraction]]:
    """(uint8 [h w 3], seconds) of every picture of an animation; of a still picture, that one. ValueError."""
    with _opened(path) as image:
        count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
        for index in range(count):
            _guarded(path, image.seek, index)
            shown = _over_black(*_guarded(path, _layers, image, path))
            seconds = Fraction(round(image.info.get("duration") or 0), 1000)
            yield shown, seconds if seconds > LEAST else ZERO


def read_durations(path) -> list[Fraction]:
    """Seconds that each picture of an animation stays. ValueError."""
    return [seconds for _, seconds in iter_animation(path)]


def _layers(image, path) -> tuple[np.ndarray, np.ndarray | None]:
    from PIL import ImageOps

    image, profile = ImageOps.exif_transpose(image), image.info.get("icc_profile")
    if image.mode == "F":
        return _grey(_unit_floats(np.asarray(image), path)), None
    if image.mode.startswith("I"):
        return _grey(_sixteen_bits(image, path)), None
    if image.mode in ("RGBa", "La"):  # Pillow turns these into their own kind only
        image = image.convert(image.mode.upper())
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return np.array(in_srgb(image, profile)), np.array(image.getchannel("A"))
    return np.array(in_srgb(image, profile)), None


def _unit_floats(values: np.ndarray, path) -> np.ndarray:
    if not np.isfinite(values).all() or values.min() < 1 - OVERSHOOT or values.max() > OVERSHOOT:
        raise ValueError(
            f"{path}: holds floats from {values.min():g} to {values.max():g}; wanted 0 (black) to 1 (white)"
        )
    return values


def _sixteen_bits(image, path) -> np.ndarray:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > WHOLE:
        raise ValueError(f"{path}: holds whole numbers from {values.min()} to {values.max()}; wanted 8 or 16 bits")
    return values / WHOLE


def _grey(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def _opened(path):
    """A Pillow image. ValueError for what is no picture, or one that is meant for an HDR screen."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    try:
        image = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    except FileNotFoundError:
        raise ValueError(f"no file at {path}") from None
    except UnidentifiedImageError:
        raise ValueError(_refusal(path)) from None
    except (*FAILS, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error
    if _is_hdr(path):
        image.close()
        raise ValueError(f"{path} is an HDR picture (PQ or HLG); save it as SDR, or convert it to PNG or JPEG")
    return image


def _guarded(path, read, *given):
    try:
        return read(*given)
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error
    except FAILS as error:
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error


def _head(path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(HEAD)
    except FileNotFoundError:
        raise ValueError(f"no file at {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def _looks_still(path) -> bool:
    """Whether a file that Pillow does not know begins as a picture does: FFmpeg would open it as a video."""
    head = _head(path)
    return head.startswith(SIGNATURES) or head[:4] + head[8:12] == b"RIFFWEBP" or _is_still_container(path)


def _is_still_container(path) -> bool:
    """AVIF or HEIC: FFmpeg opens them as videos, and shows a tile for the picture."""
    head = _head(path)
    return head[4:8] == b"ftyp" and head[8:12] in STILL_BRANDS


def _refusal(path) -> str:
    if _is_still_container(path):
        return (
            f"{path} is an AVIF or HEIC picture, which this Pillow does not read; convert it to PNG or JPEG, or "
            "install a newer Pillow (for AVIF)"
        )
    return f"{path} is not a picture that can be read; convert it to PNG or JPEG"


def _is_hdr(path) -> bool:
    """Whether a PNG or AVIF says that its numbers are PQ or HLG: Pillow would hand them on as if they were not."""
    head = _head(path)
    for mark, skip in ((b"colrnclx", 3), (b"cICP", 1)):  # two bytes a number there, one here
        at = head.find(mark)
        if at >= 0 and head[at + len(mark) + skip : at + len(mark) + skip + 1] in (bytes([PQ]), bytes([HLG])):
            return True
    return False
