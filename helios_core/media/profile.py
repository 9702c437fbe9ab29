"""Pictures with a colour profile of their own, such as Display P3 or a press's CMYK, in sRGB, as browsers show them."""

from __future__ import annotations

from io import BytesIO

SAME = "srgb"  # in a profile's description: the numbers stay as they are
TAKEN = ("RGB", "L", "CMYK")  # modes that profiles are of; others become RGB first


def in_srgb(image, profile: bytes | None):
    """A Pillow image of mode RGB. A profile that cannot be read, or does not go with the picture, is not used."""
    if not profile:
        return image.convert("RGB")
    try:
        from PIL import ImageCms
    except ImportError:  # this Pillow was built without LittleCMS
        return image.convert("RGB")
    taken = image if image.mode in TAKEN else image.convert("RGB")
    try:
        found = ImageCms.ImageCmsProfile(BytesIO(profile))
        if SAME in ImageCms.getProfileDescription(found).lower():
            return image.convert("RGB")
        screen, intent = ImageCms.createProfile("sRGB"), ImageCms.getDefaultIntent(found)
        return ImageCms.profileToProfile(taken, found, screen, renderingIntent=intent, outputMode="RGB")
    except (OSError, ValueError, ImageCms.PyCMSError):  # broken, or of another kind of picture, as CMYK's beside RGB
        return image.convert("RGB")
