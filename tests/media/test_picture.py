"""Pictures of cameras and other programs: turned, deep, tiled, transparent, damaged."""

from pathlib import Path

import numpy as np
import pytest
from helios_video.helios_core import media
from PIL import Image, ImageOps, features
from support.clips import corners

GRID = Path(__file__).with_name("grid.avif")  # four tiles, as telephones write
AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", pytest.param("avif", marks=AVIF)])
def test_pictures_are_turned_as_their_exif_says(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(corners(1)[0]).save(path, exif=exif)
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    for shown in (media.read_picture(path), media.read_frames(path)[0]):
        assert np.array_equal(shown, wanted)
    upright = {1: (48, 64), 2: (48, 64), 3: (48, 64), 4: (48, 64)}.get(orientation, (64, 48))
    assert wanted.shape[:2] == upright


def test_depths_become_eight_bits(tmp_path):
    """Grey of 16 bits, floats and whole numbers: white is white, black is black."""
    ramp = np.linspace(0, 1, 32)[None].repeat(8, 0)
    Image.fromarray((ramp * 65535).round().astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray((ramp * 65535).round().astype(np.uint16)).save(tmp_path / "a.tif")
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "f.tif")
    for name in ("a.png", "a.tif", "f.tif"):
        shown = media.read_picture(tmp_path / name)
        assert shown.shape == (8, 32, 3) and np.abs(shown[0, :, 0] - 255 * ramp[0]).max() <= 0.51, name
    Image.fromarray(ramp > 0.5).save(tmp_path / "one_bit.png")
    Image.fromarray((ramp * 255).astype(np.uint8)).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    for name in ("one_bit.png", "cmyk.jpg"):
        assert media.read_picture(tmp_path / name)[0, [0, -1]].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize(("values", "says"), [(255, "floats from 0 to 255"), (np.nan, "floats from nan")])
def test_floats_that_are_no_picture_are_refused(tmp_path, values, says):
    Image.fromarray(np.array([[0, values]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=f"a.tif: holds {says}"):
        media.read_picture(tmp_path / "a.tif")


def test_numbers_of_32_bits_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 100_000]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.tif: holds whole numbers from 0 to 100000"):
        media.read_picture(tmp_path / "a.tif")


@AVIF
def test_all_tiles_are_shown():
    with Image.open(GRID) as image:
        assert np.array_equal(media.read_picture(GRID), np.asarray(image.convert("RGB"))) and image.size == (256, 256)


@pytest.mark.parametrize("brand", [b"avif", b"heic", b"mif1"])
def test_a_format_that_pillow_lacks_is_refused_by_name(tmp_path, monkeypatch, brand):
    """FFmpeg would show the first tile."""
    data = GRID.read_bytes()
    (tmp_path / "a.heic").write_bytes(data[:8] + brand + data[12:])
    Image.init()
    monkeypatch.setattr(Image, "OPEN", {name: value for name, value in Image.OPEN.items() if name != "AVIF"})
    for read in (media.read_picture, media.read_frames, media.probe):
        with pytest.raises(ValueError, match="a.heic is an AVIF or HEIC picture, which this Pillow does not read"):
            read(tmp_path / "a.heic")


@pytest.mark.parametrize("mark", [b"colrnclx\0\x09\0\x10\0\x09", b"cICP\x09\x12\0\x01"])
def test_hdr_pictures_are_refused_by_name(tmp_path, mark):
    Image.fromarray(corners(1)[0]).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:60] + mark + data[60:])
    with pytest.raises(ValueError, match="a.png is an HDR picture"):
        media.read_picture(tmp_path / "a.png")


def test_transparency_by_index_colour_and_channel(tmp_path):
    pixels = corners(1)[0]
    indexed = Image.fromarray(pixels).quantize(8)
    indexed.save(tmp_path / "a.gif", transparency=indexed.getpixel((0, 0)))
    indexed.save(tmp_path / "p.png", transparency=indexed.getpixel((0, 0)))
    Image.fromarray(pixels).save(tmp_path / "rgb.png", transparency=tuple(pixels[0, 0].tolist()))
    alpha = np.where((pixels == pixels[0, 0]).all(-1), 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "rgba.png")
    for name in ("a.gif", "p.png", "rgb.png", "rgba.png"):
        shown, (stored, seen) = media.read_picture(tmp_path / name), media.read_layers(tmp_path / name)
        assert np.abs(shown.astype(int) - pixels * (alpha[..., None] > 0)).max() <= 2, name
        assert np.array_equal(seen, alpha) and np.abs(stored[-1].astype(int) - pixels[-1]).max() <= 2


def test_what_is_no_picture_is_told_with_its_name(tmp_path):
    Image.fromarray(corners(1)[0]).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    files = {
        "cut.png": data[:100],
        "head.png": data[:12] + b" nothing",
        "bad.png": data[:60] + b"\xff" * 40 + data[100:],
        "text.png": b"some words of text",
        "empty.jpg": b"",
        "a.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"></svg>',
        "a.jxl": b"\xff\x0a" + bytes(40),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        for read in (media.read_picture, media.read_frames, media.probe):
            with pytest.raises(ValueError, match=name):
                read(tmp_path / name)
    with pytest.raises(ValueError, match=r"text\.png is neither a picture nor a video"):
        media.read_picture(tmp_path / "text.png")
    for missing in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ValueError, match=missing.name):
            media.read_picture(missing)


def test_a_picture_too_large_for_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(corners(1)[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png is not a picture that can be read"):
        media.read_picture(tmp_path / "a.png")
