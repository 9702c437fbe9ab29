"""The workflow files, offline: links, types, widgets, ids, and the committed API twins."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import helios_video as pack
import pytest
from blueprints import blueprints
from helios_video.helios_core.workflow import format as fmt
from helios_video.helios_core.workflow import values
from helios_video.helios_core.workflow.run import plan
from helios_video.helios_core.workflow.standins import NODES as CORE

FOLDER = Path(pack.__file__).parent / "workflows"
FILES = sorted(FOLDER.glob("*.json"))
CLASSES = {**CORE, **pack.NODE_CLASS_MAPPINGS}
VERSION = "0.1.0"
GIVEN, RETURNED = -10, -20  # inside a subgraph: its inputs, its outputs


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def source(path):
    return json.loads(path.read_text(encoding="utf-8"))


def levels(source):
    """The workflow's own level, and those of its subgraphs."""
    return [source, *source.get("definitions", {}).get("subgraphs", [])]


def real_nodes(source):
    """Nodes that run, those inside subgraphs too."""
    held = {level["id"] for level in levels(source)[1:]}
    nodes = [node for level in levels(source) for node in level["nodes"]]
    return [node for node in nodes if node["type"] not in (*fmt.NOTES, *held)]


def links(level):
    """[id, from, slot, to, slot, type] of each; subgraphs hold objects."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return [[link[key] for key in keys] if isinstance(link, dict) else link for link in level["links"]]


def test_there_are_workflows():
    assert {path.stem for path in FILES} >= {"text_to_video", "composed_chunk", "prompt_schedule"}


def test_links_agree_at_both_ends(source):
    every = [node["id"] for level in levels(source) for node in level["nodes"]]
    assert len(set(every)) == len(every) and max(every) == source["last_node_id"]
    assert max(link[0] for level in levels(source) for link in links(level)) == source["last_link_id"]
    for level in levels(source):
        nodes = {node["id"]: node for node in level["nodes"]}
        ends = set()
        for number, start, out, end, slot, what in links(level):
            gives = level["inputs"][out] if start == GIVEN else nodes[start]["outputs"][out]
            takes = level["outputs"][slot] if end == RETURNED else nodes[end]["inputs"][slot]
            assert number in gives["linkIds" if start == GIVEN else "links"]
            assert number in takes["linkIds"] if end == RETURNED else takes["link"] == number
            assert gives["type"] == what
            assert set(what.split(",")) & set(takes["type"].split(",")) or "*" in (what, "*")
            ends.add(number)
        for node in level["nodes"]:
            wired = [i["link"] for i in node.get("inputs", [])]
            wired += [n for o in node.get("outputs", []) for n in o["links"]]
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
    if node["type"] not in CLASSES:  # a subgraph: one text box, and the sampler's preview
        return 20 + 24 * len(node["inputs"]) + 14 + 60 + 240
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
    for level in levels(source):
        groups = [(x, y, x + w, y + h) for x, y, w, h in (g["bounding"] for g in level["groups"])]
        assert all(apart(a, b, 10) for a, b in combinations(groups, 2))
        for node in level["nodes"]:
            assert node["size"][1] >= least_height(node), f"node {node['id']} {node['type']} grows"
            left, top, right, bottom = box(node)
            around = [g for g in groups if g[0] <= left and g[1] + 40 <= top and right <= g[2] and bottom <= g[3]]
            assert len(around) == 1, f"node {node['id']} lies in {len(around)} groups"
        for one, other in combinations(level["nodes"], 2):
            assert apart(box(one), box(other), 20), f"nodes {one['id']} and {other['id']} overlap"


def test_it_reads_well(source):
    """It begins with a note; titles fit; groups say what they hold; wires run from left to right."""
    about = next(n for n in source["nodes"] if n["type"] == "MarkdownNote")
    assert about["widgets_values"][0].startswith("## ") and about["title"] == "About this workflow"
    names = {**dict(zip(CORE, CORE)), **pack.NODE_DISPLAY_NAME_MAPPINGS}
    for level in levels(source):
        for node in level["nodes"]:
            title = node.get("title") or names[node["type"]]
            assert 8 * len(title) + 50 <= node["size"][0], f"the title {title!r} does not fit"
        assert all(10.5 * len(g["title"]) + 20 <= g["bounding"][2] for g in level["groups"])
        left = {node["id"]: node["pos"][0] for node in level["nodes"]}
        left |= {level[f"{end}Node"]["id"]: level[f"{end}Node"]["bounding"][0] for end in ("input", "output") if
                 f"{end}Node" in level}  # fmt: skip
        backward = [link for link in links(level) if left[link[3]] < left[link[1]]]
        assert not backward, "wires that run from right to left"


def test_the_loader_says_where_published_weights_are(source):
    """The frontend offers them to whoever opens a workflow that names a file he lacks."""
    for node in real_nodes(source):
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


def test_a_newcomer_sees_one_node():
    """Prompt, size, length, seed and model on it; what begins the video wired to it, what shows it behind."""
    for kind in ("text", "image"):
        source = json.loads((FOLDER / f"one_node_{kind}_to_video.json").read_text(encoding="utf-8"))
        (held,) = source["definitions"]["subgraphs"]
        (node,) = (n for n in source["nodes"] if n["type"] == held["id"])
        assert node["title"] == held["name"] == f"Helios: {kind} to video"
        shown = [entry["name"] for entry in node["inputs"] if "widget" in entry]
        assert shown == ["prompt", "width", "height", "chunks", "seed", "model"]
        assert dict(zip(shown, node["widgets_values"]))["chunks"] == 4
        assert [entry["name"] for entry in held["inputs"]] == [entry["name"] for entry in node["inputs"]]
        others = {n["type"] for n in source["nodes"]} - {held["id"], *fmt.NOTES}
        assert others == {"SaveVideo"} | ({"LoadImage"} if kind == "image" else set())
        seeds = [n["inputs"] for n in held["nodes"] if n["type"] != "HistoryMemory" or kind == "image"]
        assert all(e["link"] is not None for inputs in seeds for e in inputs if e["name"] == "seed")


def test_blueprints_are_the_workflows_nodes():
    """After a change: python tests/blueprints.py."""
    found = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER.parent / "subgraphs").iterdir()}
    assert found == blueprints()


def test_text_to_video_is_four_chunks():
    source = json.loads((FOLDER / "text_to_video.json").read_text(encoding="utf-8"))
    kinds = [node["type"] for node in source["nodes"]]
    assert kinds.count("DMDPyramidSample") == kinds.count("ChunkConcat") == 4


def test_files_are_small_and_name_no_folders_of_ours(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < (250_000 if path.stem == "long_video" else 100_000)  # 44 chunks, a column each
    assert "\\\\" not in text and "/home/" not in text
