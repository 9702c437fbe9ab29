"""A folder of clips and pictures with captions: found and checked, encoded once and kept, drawn in batches."""

from .buckets import bucket
from .clips import ClipSet, EncodedClip, Sample
from .encode import LIMIT, ClipEncoder, encode_captions, encode_clips
from .found import Captioned, CheckedFile, check_files, find_captioned

__all__ = [
    "Captioned",
    "ClipEncoder",
    "ClipSet",
    "EncodedClip",
    "LIMIT",
    "Sample",
    "CheckedFile",
    "bucket",
    "check_files",
    "encode_captions",
    "encode_clips",
    "find_captioned",
]
