"""The writer wants every byte, and leaves what came meanwhile."""

import pytest
from helios_video.helios_core.checkpoint.writer import writing
from safetensors.torch import load_file


def test_the_writer_wants_every_byte(tmp_path):
    layout = {"a": ("F32", (2,)), "b": ("U8", (3,))}
    with writing(tmp_path / "x.safetensors", layout, {"format": "pt"}) as out:
        out.put("b", [b"12", b"3"])
        out.put("a", [bytes(8)])
    assert load_file(tmp_path / "x.safetensors")["b"].tolist() == [49, 50, 51]
    with pytest.raises(ValueError, match="2 bytes for b, which has 3"), writing(tmp_path / "y", layout, {}) as out:
        out.put("b", [b"12"])
    with pytest.raises(ValueError, match="nothing was written for a"), writing(tmp_path / "y", layout, {}) as out:
        out.put("b", [b"123"])
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_what_comes_meanwhile_is_not_replaced(tmp_path):
    """Hours may lie between the look at the start and the end."""
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="exists already"), writing(path, {"a": ("U8", (1,))}, {}) as out:
        out.put("a", [b"1"])
        path.write_text("somebody's")
    assert path.read_text() == "somebody's" and [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
