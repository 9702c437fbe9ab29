"""Seeds: what widgets offer, what nodes take beyond that, from ComfyUI's API and in the workflow runner."""

from __future__ import annotations

import helios_video as pack
import pytest
from helios_video.helios_core.noise import MAX_SEED
from helios_video.helios_core.workflow import values
from helios_video.helios_core.workflow.format import inputs_of
from helios_video.nodes import seeds

NODES = pack.NODE_CLASS_MAPPINGS
SEEDED = [name for name, kind in NODES.items() if "seed" in inputs_of(kind)]


@pytest.mark.parametrize("name", SEEDED)
def test_a_widget_offers_what_a_browser_can_count(name):
    what, options = inputs_of(NODES[name])["seed"]
    assert (what, options["default"], options["min"], options["max"]) == ("INT", 0, 0, 2**53 - 1)


@pytest.mark.parametrize("name", SEEDED)
def test_a_node_takes_larger_ones_and_refuses_what_is_none(name):
    verify = NODES[name].VALIDATE_INPUTS
    assert "seed" in values.own_checks(NODES[name]), "else ComfyUI holds it to the widget's range"
    assert all(verify(seed=seed) is True for seed in (0, 2**53, MAX_SEED, None))
    assert all("whole number from 0 to" in verify(seed=seed) for seed in (-1, MAX_SEED + 1))


def test_the_workflow_runner_takes_them_too():
    inputs = {"history": ["1", 0], "seed": MAX_SEED}
    prompt = {
        "1": {"class_type": "HistoryMemory", "inputs": {"model": ["2", 0], "width": 0, "height": 0}},
        "2": {"class_type": "HeliosLoader", "inputs": {"model": "helios-tiny"}},
        "3": {"class_type": "HeliosNoise", "inputs": inputs},
    }
    values.check(prompt, NODES, list(prompt))
    values.override(prompt, NODES, {"3.seed": str(2**60 + 1)})
    assert inputs["seed"] == 2**60 + 1
    inputs["seed"] = MAX_SEED + 1
    with pytest.raises(ValueError, match="node 3.*wanted a whole number"):
        values.check(prompt, NODES, list(prompt))
    assert seeds.refusal("seven")


@pytest.mark.parametrize("seed", [0, 5])
def test_text_to_video_does_not_depend_on_the_seed_of_its_memory(tiny_history, seed):
    """So that a finished chunk is found again: what is kept is keyed by the history's content."""
    from helios_video.helios_core.disk.store import digest

    assert digest("latent", tiny_history(seed)) == digest("latent", tiny_history(0))


@pytest.fixture(scope="module")
def tiny_history():
    from helios_video.helios_core import load

    model = load()
    return lambda seed: NODES["HistoryMemory"]().start(model, 0, 0, seed=seed)[0].history
