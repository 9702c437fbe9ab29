"""The workflow files, offline: links, types, widgets, ids, and the committed API twins."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core.workflow import format as fmt
from helios_video.helios_core.workflow import values
from helios_video.helios_core.workflow.run import plan
from helios_video.helios_core.workflow.standins import NODES as CORE

FOLDER = Path(pack.__file__).parent / "workflows"
FILES = sorted(FOLDER.glob("*.json"))
CLASSES = {**CORE, **pack.NODE_CLASS_MAPPINGS}
VERSION = "0.1.0"
STARTS = {"image_to_video", "video_to_video", "continue_video"}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def source(path):
    return json.loads(path.read_text(encoding="utf-8"))


def real_nodes(source):
    return [node for node in source["nodes"] if node["type"] not in fmt.NOTES]


def test_there_are_workflows():
    assert {path.stem for path in FILES} >= {"text_to_video", "composed_chunk", "prompt_schedule"}


def test_links_agree_at_both_ends(source):
    nodes = {node["id"]: node for node in source["nodes"]}
    assert len(nodes) == len(source["nodes"]) and max(nodes) == source["last_node_id"]
    assert max(link[0] for link in source["links"]) == source["last_link_id"]
    ends = set()
    for number, start, out, end, slot, what in source["links"]:
        assert number in nodes[start]["outputs"][out]["links"]
        assert nodes[end]["inputs"][slot]["link"] == number
        assert nodes[start]["outputs"][out]["type"] == what
        assert set(what.split(",")) & set(nodes[end]["inputs"][slot]["type"].split(",")) or "*" in (what, "*")
        ends.add(number)
    for node in source["nodes"]:
        wired = [i["link"] for i in node.get("inputs", [])] + [n for o in node.get("outputs", []) for n in o["links"]]
        assert set(wired) - {None} <= ends


def test_only_our_nodes_and_core_ones_with_their_ids(source):
    for node in real_nodes(source):
        assert node["type"] in CLASSES, node["type"]
        ours = node["type"] in pack.NODE_CLASS_MAPPINGS
        assert node["properties"]["cnr_id"] == ("helios-video" if ours else "comfy-core")
        assert node["properties"]["ver"] == (VERSION if ours else "0.3.64")
        assert node["properties"]["Node name for S&R"] == node["type"]
        assert node["mode"] == 0


def test_slots_are_those_of_the_classes(source):
    for node in real_nodes(source):
        kind = CLASSES[node["type"]]
        inputs = fmt.inputs_of(kind)
        assert {entry["name"]: entry["type"] for entry in node["inputs"]} == {n: w for n, (w, _) in inputs.items()}
        given = [entry["type"] for entry in node["outputs"]]  # of core's nodes newer versions have more
        assert given == list(kind.RETURN_TYPES)[: None if node["type"] in pack.NODE_CLASS_MAPPINGS else len(given)]
        if node["type"] in pack.NODE_CLASS_MAPPINGS:
            assert [entry["name"] for entry in node["outputs"]] == list(kind.RETURN_NAMES)


def test_widget_values_fill_every_slot_with_a_legal_value(source):
    for node in real_nodes(source):
        inputs = fmt.inputs_of(CLASSES[node["type"]])
        widgets = {name: spec for name, spec in inputs.items() if fmt.has_widget(*spec)}
        slots = sum(1 + fmt.slots_after(name, *spec) for name, spec in widgets.items())
        assert len(node.get("widgets_values", [])) == slots, node["type"]
        for name, value in fmt.widget_values(node, CLASSES[node["type"]]).items():
            assert values.convert(value, *widgets[name], where=name) == value


def test_seeds_are_fixed(source):
    for node in real_nodes(source):
        controls = [value for value in node.get("widgets_values", []) if value in fmt.CONTROLS]
        assert set(controls) <= {"fixed"}


def least_height(node):
    """What the frontend needs: rows of 20 for wires, of 24 for widgets; a text box and a preview want more."""
    if node["type"] in fmt.NOTES:
        return 60
    kind = CLASSES[node["type"]]
    inputs = fmt.inputs_of(kind)
    widgets = {name: spec for name, spec in inputs.items() if fmt.has_widget(*spec)}
    rows = sum(1 + fmt.slots_after(name, *spec) for name, spec in widgets.items())
    boxes = sum(bool(options.get("multiline")) for _, options in widgets.values())
    return 20 * max(len(inputs) - len(widgets), len(node["outputs"])) + 24 * rows + 14 + 60 * boxes


def box(node):
    """Left, top, right, bottom, with the title above."""
    (x, y), (w, h) = node["pos"], node["size"]
    return x, y - 30, x + w, y + h


def apart(one, other, gap=0):
    """Whether two rectangles leave a gap between them."""
    return any(
        a + gap <= b for a, b in ((one[2], other[0]), (other[2], one[0]), (one[3], other[1]), (other[3], one[1]))
    )


def test_nothing_overlaps(source):
    """Nodes as large as the frontend draws them, each inside one group and clear of its title; groups side by side."""
    groups = [(x, y, x + w, y + h) for x, y, w, h in (g["bounding"] for g in source["groups"])]
    assert all(apart(a, b, 10) for a, b in combinations(groups, 2))
    for node in source["nodes"]:
        assert node["size"][1] >= least_height(node), f"node {node['id']} {node['type']} grows over what is below it"
        left, top, right, bottom = box(node)
        around = [g for g in groups if g[0] <= left and g[1] + 40 <= top and right <= g[2] and bottom <= g[3]]
        assert len(around) == 1, f"node {node['id']} lies in {len(around)} groups"
    for one, other in combinations(source["nodes"], 2):
        assert apart(box(one), box(other), 20), f"nodes {one['id']} and {other['id']} overlap"


def test_it_reads_well(source):
    """It begins with a note; titles fit; groups say what they hold; wires run from left to right."""
    about = next(n for n in source["nodes"] if n["type"] == "MarkdownNote")
    assert about["widgets_values"][0].startswith("## ") and about["title"] == "About this workflow"
    names = {**dict(zip(CORE, CORE)), **pack.NODE_DISPLAY_NAME_MAPPINGS}
    for node in source["nodes"]:
        title = node.get("title") or names[node["type"]]
        assert 8 * len(title) + 50 <= node["size"][0], f"the title {title!r} does not fit"
    assert all(10.5 * len(g["title"]) + 20 <= g["bounding"][2] for g in source["groups"])
    nodes = {node["id"]: node for node in source["nodes"]}
    backward = [link for link in source["links"] if nodes[link[3]]["pos"][0] < nodes[link[1]]["pos"][0]]
    assert not backward, "wires that run from right to left"


def test_the_loader_says_where_published_weights_are(source):
    """The frontend offers them to whoever opens a workflow that names a file he lacks."""
    for node in source["nodes"]:
        models = node["properties"].get("models", [])
        assert bool(models) == (node["type"] == "HeliosLoader")
        for model in models:
            assert set(model) == {"name", "url", "directory"} and model["directory"] in ("vae", "text_encoders")
            assert re.fullmatch(r"https://huggingface\.co/[\w./-]+\.safetensors", model["url"])
            assert model["url"].endswith(f"/{model['directory']}/{model['name']}")


def test_the_api_twin_is_the_conversion(path, source):
    twin = json.loads((FOLDER / "api" / path.name).read_text(encoding="utf-8"))
    assert fmt.to_api(source, CLASSES) == twin


def test_it_would_run(source, tmp_path, monkeypatch):
    for node in real_nodes(source):
        if node["type"] in ("LoadImage", "LoadVideo"):
            (tmp_path / node["widgets_values"][0]).touch()
    monkeypatch.chdir(tmp_path)
    prompt = fmt.to_api(source, CLASSES)
    order = plan(prompt, CLASSES)
    values.check(prompt, CLASSES, order)
    assert len(order) == len(real_nodes(source)), "a node leads nowhere"


def test_each_has_a_thumbnail(path):
    picture = path.with_suffix(".jpg").read_bytes()
    assert picture.startswith(b"\xff\xd8") and len(picture) < 100_000


def test_text_to_video_is_four_chunks():
    source = json.loads((FOLDER / "text_to_video.json").read_text(encoding="utf-8"))
    kinds = [node["type"] for node in source["nodes"]]
    assert kinds.count("DMDPyramidSample") == kinds.count("ChunkConcat") == 4


def test_files_are_small_and_name_no_folders_of_ours(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < (250_000 if path.stem == "long_video" else 100_000)  # 44 chunks, a column each
    assert "\\\\" not in text and "/home/" not in text
