"""A checkpoint from one layout or number format into another."""

from .convert import FORMATS, convert

__all__ = ["FORMATS", "convert"]
