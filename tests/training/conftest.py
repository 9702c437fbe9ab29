"""Photographs and small sizes to train on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from support.ul import TRAINED


@pytest.fixture
def photos(tmp_path):
    """Three images, one of them smaller than a crop, one in a folder below."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 50)), ("b.jpg", (33, 24)), ("more/c.png", (9, 12))):
        smooth = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
        smooth.save(folder / name)
    return folder


@pytest.fixture
def sizes(tmp_path):
    file = tmp_path / "sizes.json"
    file.write_text(json.dumps({"latent_channels": 4, "stride": [1, 8], **TRAINED}))
    return file
