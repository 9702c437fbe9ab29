"""Names of files to write: one rule on every system."""

import pytest
from helios_video.helios_core.disk.file_names import check_name, inside

BAD = [
    "",
    ".",
    "..",
    "../x",
    "a/../x",
    "..\\x",
    "/abs/x",
    "\\abs",
    "C:x",
    "C:\\x",
    "file:x",
    "a:b",
    "x\0",
    "x\ny",
    "a\x7f",
]
BAD += ["con", "a/NUL.txt", "lpt1.mp4", "x.", "x ", "x" * 300, "a" * 245, "x/", "a*b", "\ud800"]


@pytest.mark.parametrize("name", BAD)
def test_names_that_no_file_gets_anywhere(tmp_path, name):
    with pytest.raises(ValueError, match="file name "):
        inside(tmp_path, name, ending="_00001_.mp4")


def test_names_that_every_system_takes(tmp_path):
    for name, parts in (
        ("a", "a"),
        ("sub/a b", "sub/a b"),
        ("sub\\a", "sub/a"),
        ("./\u3042.x", "\u3042.x"),
        ("x" * 240, ""),
    ):
        assert inside(tmp_path, name, ending="_00001_.mp4") == tmp_path / (parts or name)
    assert check_name("console.mp4") == "console.mp4"
