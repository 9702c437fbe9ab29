"""A checkpoint from one layout or number format into another."""

from .convert import FORMATS, convert, read_texts
from .gguf_quants import KINDS as GGUF_KINDS
from .gguf_quants import NO_QUANTISER

__all__ = ["FORMATS", "GGUF_KINDS", "NO_QUANTISER", "convert", "read_texts"]
