"""The stand-ins for ComfyUI's own nodes: pictures and videos go in and out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helios_video.helios_core.join import video
from helios_video.helios_core.workflow.run import run


def test_pictures_and_videos_go_in_and_out(tmp_path):
    """LoadVideo -> GetVideoComponents -> CreateVideo -> SaveVideo: the frames come out again, the workflow inside."""
    frames = np.zeros((6, 32, 48, 3), np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None, None] * 40
    video.write_video(tmp_path / "in.mp4", frames, fps=12)
    source = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "in.mp4"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "fps": ["2", 2]}},
        "4": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["3", 0], "filename_prefix": "video/x", "format": "auto", "codec": "auto"},
        },
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}},
    }
    (tmp_path / "flow.json").write_text(json.dumps(source))
    out = tmp_path / "out"
    result = run(tmp_path / "flow.json", {}, output_dir=out, input_dir=tmp_path)
    assert result.files == [out / "video" / "x_00001_.mp4"] and result.texts == {"PreviewAny": "12.0"}
    assert np.abs(video.read_frames(result.files[0]).astype(int) - frames).max() <= 4
    assert video.probe(result.files[0]).fps == 12
    assert video.read_metadata(result.files[0])["prompt"]["1"]["class_type"] == "LoadVideo"
    assert run(tmp_path / "flow.json", {}, output_dir=out, input_dir=tmp_path).files == [out / "video" / "x_00002_.mp4"]
    assert [p.name for p in out.iterdir()] == ["video"], "files on the way are left behind"
    with pytest.raises(ValueError, match="no video at .*gone.mp4"):
        run(tmp_path / "flow.json", {}, {"LoadVideo.file": "gone.mp4"}, output_dir=out, input_dir=tmp_path)
    with pytest.raises(ValueError, match="filename_prefix: file name '../x': wanted one inside"):
        run(tmp_path / "flow.json", {}, {"SaveVideo.filename_prefix": "../x"}, output_dir=out, input_dir=tmp_path)
