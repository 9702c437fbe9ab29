"""The bar of a whole run, the time left, and the sheet of a chunk's frames."""

import math
from copy import copy

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.decode import preview
from helios_video.nodes import live, place


def graph(chunks: int, start: str = "s") -> dict[str, tuple[str, set[str]]]:
    """Node -> (class, what it is wired to) of a chain of chunks, each sampled, corrected and decoded."""
    nodes = {"load": ("HeliosLoader", set()), "begin": ("HistoryMemory", {"load"})}
    last = "begin"
    for i in range(chunks):
        nodes[f"{start}{i}"] = (place.SAMPLER, {"load", last})
        nodes[f"drift{i}"] = ("AntiDrift", {f"{start}{i}"})
        nodes[f"join{i}"] = (place.DECODER, {f"{start}{i}", "load", *([f"join{i - 1}"] if i else [])})
        last = f"drift{i}"
    nodes["save"] = ("SaveVideo", {f"join{chunks - 1}"})
    return nodes


def where(nodes, node):
    kinds, wires = {i: kind for i, (kind, _) in nodes.items()}, {i: set(w) for i, (_, w) in nodes.items()}
    return place.Layout(kinds, wires).chunk_of(node)


def test_a_nodes_chunk_is_read_off_the_graph():
    nodes = graph(4)
    assert [where(nodes, f"s{i}") for i in range(4)] == [(i, 4) for i in range(4)]
    assert [where(nodes, f"join{i}") for i in range(4)] == [(i, 4) for i in range(4)]


def test_two_videos_in_one_graph_have_a_bar_each():
    nodes = graph(2) | {"t0": (place.SAMPLER, {"load"}), "t1": (place.SAMPLER, {"t0"}), "t2": (place.SAMPLER, {"t1"})}
    assert (where(nodes, "s1"), where(nodes, "t1")) == ((1, 2), (1, 3))
    nodes["own"] = (place.DECODER, {"load"})
    assert where(nodes, "own") == (0, 1), "latents from elsewhere"


def test_a_long_graph_takes_no_time():
    nodes = graph(300)
    assert where(nodes, "join150") == (150, 300)


def run(prompt, kind, index, chunks=3):
    return place.RunPlace(prompt, kind, "1", index, chunks, decoded=True)


def test_the_bar_never_goes_back_and_the_time_left_is_what_it_takes():
    """Chunks of two steps of 3 and 1 seconds, decoded in 2 seconds; the first step includes 50 seconds of loading."""
    prompt, seen = place.Prompt(), []
    for chunk in range(3):
        sampler, joiner = run(prompt, place.SAMPLER, chunk), run(prompt, place.DECODER, chunk)
        seen.append(sampler.advance([3, 1], 0, 1, 4, 53 if not chunk else 3))
        seen.append(sampler.advance([3, 1], 1, 2, 4, 1))
        seen.append(joiner.advance([1] * 9, 0, 9, 9, 2))
    bars, totals, texts = zip(*seen)
    assert list(bars) == sorted(bars) and set(totals) == {300} and bars[-1] == 300
    assert texts[0] == "chunk 1 of 3, step 1 of 2", "nothing is known yet"
    assert texts[1] == "chunk 1 of 3, step 2 of 2, 0:08 left", "two more chunks; decoding is not known yet"
    assert texts[2] == "decoding chunk 1 of 3, 0:12 left"
    assert texts[3] == "chunk 2 of 3, step 1 of 2, 0:09 left" and texts[7] == "chunk 3 of 3, step 2 of 2, 0:02 left"
    assert texts[8] == "decoding chunk 3 of 3"


def test_all_chunks_sampled_before_any_is_decoded():
    prompt = place.Prompt()
    for chunk in range(2):
        run(prompt, place.SAMPLER, chunk, 2).advance([1, 1], 1, 2, 2, 1)
    values = [run(prompt, place.DECODER, chunk, 2).advance([1], 0, 1, 1, 2) for chunk in range(2)]
    assert [value for value, _, _ in values] == [190, 200]
    assert values[0][2] == "decoding chunk 1 of 2, 0:02 left"


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "0:01"), (59.5, "1:00"), (65, "1:05"), (3661, "1:01:01")])
def test_a_clock(seconds, said):
    assert place.clock(seconds) == said


def test_what_a_step_costs():
    """A finer stage has four times the tokens, and they all see the history."""
    from helios_video.helios_core.steps.denoise import plan_chunk

    config = load().config
    plan = plan_chunk(config, 1, steps=(2, 1, 1))
    one, same, two, three = plan.costs
    assert len(plan.costs) == plan.total and one == same
    assert math.isclose((three - two) / (two - one), 4)
    assert sum(plan_chunk(config, 0, steps=(2, 1, 1), solver="dmd").costs) >= sum(plan.costs)


def test_a_sheet_holds_every_frame():
    z = torch.arange(2 * 9.0).view(2, 1, 9, 1, 1).expand(2, 16, 9, 4, 6).clone()
    whole = live.sheet(z)
    assert whole.shape == (1, 16, 1, 5 * 4, 2 * 6)
    assert whole[0, 0, 0, ::4, ::6].flatten().tolist() == [*range(9), 0]
    assert live.sheet(z[:, :, :1]).shape == (1, 16, 1, 4, 6)


def test_reading_has_a_bar_on_the_node_after_a_moment(monkeypatch, capsys):
    shown = []

    class ProgressBar:
        def __init__(self, total):
            shown.append(("of", total))

        def update_absolute(self, value, total):
            shown.append((value, total))

    monkeypatch.setattr(live.host, "optional", lambda *_: ProgressBar)
    with live.reading("reading transformer", 100) as report:
        report(10, 100)
        assert not shown and not capsys.readouterr().err
        monkeypatch.setattr(live, "READING_DELAY", 0)
        report(60, 100)
        report(100, 100)
    assert shown == [("of", 100), (60, 100), (100, 100)]


def test_a_picture_is_shown_a_step_later_once_it_is_there(monkeypatch):
    """On a GPU: the host waits for none, and one that is late is left out."""
    from helios_video.helios_core.backends.torch import transfer

    class Arrival:
        arrived = True

        def __init__(self, latent):
            self.latent = latent

        def wait(self):
            return self.latent

    monkeypatch.setattr(transfer, "Arrival", Arrival)
    later = live.Later(lambda latent: f"picture of {latent}")
    assert [later(n) for n in range(3)] == [None, "picture of 0", "picture of 1"]
    later.waiting.arrived = False
    assert [later(3), later(4)] == [None, "picture of 3"]


def test_the_colours_of_a_vae_are_fitted_once(comfyui, fake_helios, monkeypatch):
    """ComfyUI hands every node a pipeline of its own around the same VAE."""
    fitted, own = [], preview.fit
    monkeypatch.setattr(preview, "fit", lambda helios: fitted.append(helios) or own(helios))
    monkeypatch.setattr(live, "_TABLES", {})
    assert live.previewer(fake_helios) and live.previewer(copy(fake_helios))
    assert len(fitted) == 1
