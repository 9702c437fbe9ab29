"""What is said of time."""

import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands.progress import Left, seconds


def test_what_is_left_follows_from_the_chunks_that_this_run_made():
    now = [100.0]
    left = Left(6, clock=lambda: now[0])
    assert left.of(2) == "chunk 3/6"  # two were there before
    now[0] += 30
    assert left.of(3) == "chunk 4/6, 1 min 30 s left"
    now[0] += 10
    assert left.of(4) == "chunk 5/6, 40 s left"


@pytest.mark.parametrize(
    ("count", "text"), [(0.04, "0.0 s"), (9.1, "9.1 s"), (59.4, "59 s"), (60, "1 min 0 s"), (7384, "2 h 3 min")]
)
def test_spans_are_told_for_people(count, text):
    assert seconds(count) == text


def test_generate_tells_frames_and_time_at_the_end(fake, capsys):
    assert main(["generate", "--prompt", "a", "--frames", "66"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("66 frames in ") and last.endswith(" s")


@pytest.mark.parametrize("content", [b"no picture", b"\x89PNG\r\n\x1a\n cut"])
def test_a_broken_picture_is_told_before_a_model_is_opened(fake, tmp_path, content, capsys):
    (tmp_path / "cat.png").write_bytes(content)
    assert main(["generate", "--prompt", "a", "--image", "cat.png"]) == 2
    assert "cat.png" in capsys.readouterr().err and not hasattr(fake, "options")
