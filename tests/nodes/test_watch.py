"""What the web extension is sent while a run goes on, and that nothing is where no browser waits for it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core.history.window import History
from helios_video.helios_core.join.clip import Clip
from helios_video.nodes import sockets, watch
from PIL import Image

VAE = SimpleNamespace(latents_mean=[0.0] * 16, latents_std=[1.0] * 16)
DRIFTS = pack.NODE_CLASS_MAPPINGS["AntiDrift"]


@pytest.fixture
def server(monkeypatch):
    """ComfyUI's server: the browser that queued, the node that runs, and what was sent."""
    server = SimpleNamespace(client_id="browser", last_node_id="7", last_prompt_id="one", sent=[])
    server.send_sync = lambda event, values, client: server.sent.append((event, values, client))
    monkeypatch.setitem(sys.modules, "folder_paths", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    return server


def frames(level, size=(40, 320), count=5):
    """Grey frames that grow lighter by one level each."""
    return np.stack([np.full((*size, 3), level + i, np.uint8) for i in range(count)])


def test_a_chunk_is_sent_with_its_picture_and_its_joint(server, tmp_path):
    clip = Clip.new(tmp_path / "helios" / "run")
    for level in (100, 124):
        clip = clip.append(frames(level))
        watch.show_chunk(clip)
    (event, first, client), (_, second, _) = server.sent
    assert (event, client, first["node"], first["jump"]) == ("helios-video.chunk", "browser", "7", None)
    assert second["folder"] == "helios/run" and second["names"] == ["chunk_0000", "chunk_0001"]
    assert second["jump"] == pytest.approx(100 * 20 / 255, rel=0.1)  # from level 104 to 124
    assert second["inside"] == pytest.approx(100 * 1 / 255, rel=0.3)
    with Image.open(clip.folder / "chunk_0001.jpg") as picture:
        assert picture.size == (160, 20) and abs(np.asarray(picture).mean() - 128) < 3


def test_nothing_is_sent_or_written_where_no_browser_waits(server, tmp_path):
    clip = Clip.new(tmp_path).append(frames(100))
    server.client_id = None
    watch.show_chunk(clip)
    sys.modules.pop("folder_paths")
    watch.show_chunk(clip)
    assert not server.sent and not list(tmp_path.glob("*.jpg"))


def test_anti_drift_sends_its_distances(server):
    history, generator = History(torch.zeros(1, 16, 19, 8, 8)), torch.Generator().manual_seed(0)
    for chunk, shift in enumerate((0.0, 3.0)):
        history = history.append(torch.randn(1, 16, 9, 8, 8, generator=generator) + shift)
        memory = sockets.HistorySocket(history, 9, VAE, lambda values, like=None: torch.as_tensor(values))
        history = DRIFTS().correct(memory, "off", momentum=0.5, variance_threshold=0.0)[0].history
        event, values, _ = server.sent[-1]
        assert (event, values["chunk"], values["found"]) == ("helios-video.drift", chunk, bool(chunk))
    assert values["first_mean"] == pytest.approx(12, rel=0.05)  # 3 in each of 16 channels
    assert values["mean"] == pytest.approx(6, rel=0.05) and values["mean_threshold"] == 0.15
