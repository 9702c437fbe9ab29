"""Pictures with a colour profile: shown in sRGB."""

import numpy as np
import pytest
from helios_video.helios_core import media
from PIL import Image, ImageCms
from support.clips import corners


def profile(swap: bool = True, name: str = "other") -> bytes:
    """sRGB's with red and green in each other's place, under another name of the same length."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if swap:
        made = made.replace(b"rXYZ", b"####").replace(b"gXYZ", b"rXYZ").replace(b"####", b"gXYZ")
    return made.replace("sRGB".encode("utf-16-be"), name[:4].encode("utf-16-be"))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_a_profile_counts(tmp_path, ending):
    exact = {"lossless": True} if ending == "webp" else {"quality": 100} if ending == "jpg" else {}
    Image.fromarray(corners(1)[0]).save(tmp_path / f"a.{ending}", icc_profile=profile(), **exact)
    wanted = corners(1)[0][..., [1, 0, 2]].astype(int)
    shown = media.read_picture(tmp_path / f"a.{ending}")
    near = 12 if ending == "jpg" else 2
    assert np.abs(shown[[4, 4, -4, -4], [4, -4, 4, -4]] - wanted[[4, 4, -4, -4], [4, -4, 4, -4]]).max() <= near
    assert np.array_equal(media.read_frames(tmp_path / f"a.{ending}")[0], shown)


def test_transparency_stays_beside_it(tmp_path):
    alpha = np.full((48, 64, 1), 128, np.uint8)
    Image.fromarray(np.dstack([corners(1)[0], alpha])).save(tmp_path / "a.png", icc_profile=profile())
    assert media.read_picture(tmp_path / "a.png")[4, 4].tolist() == pytest.approx([15, 115, 15], abs=2)


@pytest.mark.parametrize("held", [b"broken", profile(swap=False, name="sRGB"), profile()[:200]])
def test_srgb_itself_and_broken_ones_change_nothing(tmp_path, held):
    Image.fromarray(corners(1)[0]).save(tmp_path / "a.png", icc_profile=held)
    assert np.array_equal(media.read_picture(tmp_path / "a.png"), corners(1)[0])


def test_one_of_another_kind_of_picture_is_not_used(tmp_path):
    Image.fromarray(corners(1)[0]).convert("CMYK").save(tmp_path / "a.tif", icc_profile=profile())
    plain = np.asarray(Image.fromarray(corners(1)[0]).convert("CMYK").convert("RGB"))
    assert np.array_equal(media.read_picture(tmp_path / "a.tif"), plain)
