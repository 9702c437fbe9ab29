"""The workflows on a stand-in model: they run, and what fails leaves what it finished."""

from __future__ import annotations

from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core.join import video
from helios_video.helios_core.workflow.run import run

FOLDER = Path(pack.__file__).parent / "workflows"


@pytest.mark.parametrize("name", ["text_to_video", "composed_chunk", "api/text_to_video", "api/composed_chunk"])
def test_our_workflows_run_with_our_nodes(name, tmp_path, fake_loader):
    result = run(FOLDER / f"{name}.json", pack.NODE_CLASS_MAPPINGS, {"Seed.value": 7}, output_dir=tmp_path)
    (file,) = result.files
    chunks = 4 if "text" in name else 1
    info = video.probe(file)
    assert (info.frames, info.width, info.height, info.fps) == (33 * chunks, 64, 128, 24)
    assert (info.colorspace, info.pixel_format) == (1, "yuv420p")
    metadata = video.read_metadata(file)
    assert "prompt" in metadata and ("workflow" in metadata) == ("api" not in name)
    assert [call["seed"] for call in fake_loader.calls] == [7] * chunks
    assert [call["history"].chunk for call in fake_loader.calls] == list(range(chunks))
    if chunks == 1:
        assert "4x2" in result.texts["Noise report"]
        assert fake_loader.calls[0]["start"].shape == (1, 16, 9, 4, 2)


def test_a_failing_run_leaves_its_finished_chunks_playable(tmp_path, fake_loader, monkeypatch, caplog):
    genuine = fake_loader.sample

    def sample(history, positive, **options):
        if history.chunk == 2:
            raise ValueError("NaN in chunk 2")
        return genuine(history, positive, **options)

    monkeypatch.setattr(fake_loader, "sample", sample)
    with pytest.raises(ValueError, match="NaN in chunk 2"):
        run(FOLDER / "text_to_video.json", pack.NODE_CLASS_MAPPINGS, output_dir=tmp_path)
    chunks = sorted(tmp_path.rglob("chunk_*.mp4"))
    assert [video.probe(path).frames for path in chunks] == [33, 33]
    assert str(chunks[0].parent.parent) in caplog.text
