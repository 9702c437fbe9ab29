"""Headers of safetensors files: what they must hold, and broken ones."""

import json
import struct

import pytest
import torch
from helios_video.helios_core.checkpoint import headers
from safetensors.torch import save_file


def raw(path, header, data=b""):
    """A safetensors file with any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(start, stop, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def test_headers_of_good_files(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16), "empty": torch.zeros(0, 5)}
    save_file(tensors, path, metadata={"format": "pt"})
    found = headers.read_header(path)
    assert {k: v.shape for k, v in found.items()} == {"a": (2, 3), "b": (4,), "empty": (0, 5)}
    assert found["b"].dtype == "BF16" and found["a"].file == path


BROKEN = {
    "overlap": ({"a": entry(0, 4), "b": entry(2, 6)}, b"\0" * 6, "b overlaps"),
    "hole": ({"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12, "b overlaps"),
    "wrong length": ({"a": entry(0, 8)}, b"\0" * 8, "wrong length"),
    "negative": ({"a": entry(-4, 0)}, b"", "malformed"),
    "cut short": ({"a": entry(0, 4)}, b"\0" * 3, "names 4 bytes of weights, it holds 3"),
    "too long": ({"a": entry(0, 4)}, b"\0" * 5, "cut short or too long"),
    "unknown dtype": ({"a": entry(0, 4, dtype="F31")}, b"\0" * 4, "unknown dtype F31"),
    "dtype of another kind": ({"a": entry(0, 4, dtype=["F32"])}, b"\0" * 4, "malformed"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4, "malformed"),
    "three offsets": ({"a": entry(0, 4) | {"data_offsets": [0, 4, 8]}}, b"\0" * 4, "malformed"),
    "shape of another kind": ({"a": entry(0, 4) | {"shape": 1}}, b"\0" * 4, "malformed"),
    "entry of another kind": ({"a": 5}, b"", "malformed"),
    "list": ([1, 2], b"", "should hold a JSON object, it holds a list; download"),
    "not JSON": (b"{not json}", b"", "not JSON"),
    "not UTF-8": (b"\xff\xfe\xff", b"", "no UTF-8 text .*download the file again"),
    "deep": (b"[" * 5000, b"", "nested too deeply"),
    "byte order mark": (b"\xef\xbb\xbf{]", b"", "not JSON"),
    "endless": (b'{"a": ' + b"9" * 5000 + b"}", b"", "endless number"),
    "two negatives": ({"a": entry(0, 4, shape=(-1, -1))}, b"\0" * 4, "malformed"),
    "fractions": ({"a": entry(0, 4.5)}, b"\0" * 4, "malformed"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers_are_refused(tmp_path, name):
    header, data, words = BROKEN[name]
    with pytest.raises(ValueError, match=words) as error:
        headers.read_header(raw(tmp_path / "x.safetensors", header, data))
    assert "x.safetensors" in str(error.value)


@pytest.mark.parametrize("said", [{"a": 1}, [1], "text", {"a": {"b": "c"}}])
def test_metadata_is_texts(tmp_path, said):
    with pytest.raises(ValueError, match="x.safetensors: the safetensors header's metadata is no list of texts"):
        headers.read_metadata(raw(tmp_path / "x.safetensors", {"__metadata__": said}))


@pytest.mark.parametrize(
    "name",
    ["../b.safetensors", "..\\b.safetensors", "/etc/b.safetensors", "C:\\b.safetensors", "sub/b.safetensors", "..", ""],
)
def test_an_index_names_files_of_its_own_folder_only(tmp_path, name):
    """Even where there is one."""
    (tmp_path / "part").mkdir()
    raw(tmp_path / "b.safetensors", {})
    (tmp_path / "part" / headers.INDICES[0]).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="which is no file of its own folder"):
        headers.find_files(tmp_path / "part")


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 8, b"\x10" + b"\0" * 9, b"PK\x03\x04" + b"\0" * 60])
def test_files_of_another_kind_are_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file|not JSON"):
        headers.read_header(path)
