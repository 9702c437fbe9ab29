"""The nodes and the panels in the real frontend speak the language that it is set to."""

from __future__ import annotations

import json
from pathlib import Path

import helios_video as pack
import pytest
import translations
from helios_video.helios_core.workflow.format import has_widget, inputs_of
from support.frontend import EXTENSIONS, MOUNT, opened, static_folders

FLOWS = Path(pack.__file__).parent / "workflows"
WORDS = """async (types) => Object.fromEntries(types.map(type => {
  const node = window.LiteGraph.createNode(type)
  const label = s => s.label ?? s.localized_name ?? s.name
  return [type, {
    title: node.title, outputs: node.outputs.map(label),
    inputs: Object.fromEntries(node.inputs.map(i => [i.name, label(i)])),
    widgets: Object.fromEntries((node.widgets ?? []).map(w => [w.name, w.label ?? w.name])),
  }]
}))"""


@pytest.mark.parametrize("language", translations.LANGUAGES)
@pytest.mark.parametrize("static", static_folders()[:1] or [None], ids=lambda p: p and p.parent.name)
def test_the_nodes_speak_the_language_of_the_frontend(static, language):
    texts = {lang: translations.read(lang, "main") for lang in translations.LANGUAGES}
    for lang, main in texts.items():
        main["nodeDefs"] = translations.read(lang, "nodeDefs")

    def translate(page):
        page.route("**/api/i18n", lambda route: route.fulfill(json=texts))

    with opened(static, prepare=translate, Comfy_Locale=language) as page:
        shown = page.evaluate(WORDS, list(pack.NODE_CLASS_MAPPINGS))
    for name, kind in pack.NODE_CLASS_MAPPINGS.items():
        wanted = texts[language]["nodeDefs"][name]
        assert shown[name]["title"] == wanted["display_name"]
        assert shown[name]["outputs"] == [text["name"] for text in wanted["outputs"].values()]
        for field, spec in inputs_of(kind).items():
            place = "widgets" if has_widget(*spec) else "inputs"
            assert shown[name][place][field] == wanted["inputs"][field]["name"], f"{name}.{field}"


@pytest.mark.parametrize("language", ["zh", "ja"])
@pytest.mark.parametrize("static", static_folders() or [None], ids=lambda p: p and p.parent.name)
def test_the_panels_speak_the_language_of_the_frontend(static, language):
    source = json.loads((FLOWS / "prompt_schedule.json").read_text(encoding="utf-8"))
    schedule = next(node for node in source["nodes"] if node["type"] == "HeliosPromptSchedule")
    schedule["widgets_values"] = ["no chunk here"]
    error, empty = "The text does not begin with a chunk, as in {example}.", "The chunks are shown here."
    with opened(static, extensions=EXTENSIONS, Comfy_Locale=language) as page:
        page.evaluate("async workflow => { await app.loadGraphData(workflow) }", source)
        page.wait_for_selector(".helios-empty", state="attached")
        words = page.evaluate("async url => (await import(url)).WORDS", f"{MOUNT}/js/words.js")[language]
        said = page.evaluate(
            "() => [...document.querySelectorAll('.helios-empty, .helios-note')].map(e => e.textContent)"
        )
    assert words[empty] in said and any(text.startswith(words[error].split("{")[0]) for text in said), said


def notes(graph) -> list[str]:
    inner = [text for held in graph.get("definitions", {}).get("subgraphs", []) for text in notes(held)]
    return [node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote"] + inner


def test_the_notes_that_are_translated_are_those_of_the_workflows():
    shipped = {path.stem: notes(json.loads(path.read_text(encoding="utf-8"))) for path in FLOWS.glob("*.json")}
    texts = json.loads((FLOWS.parent / "web" / "notes.json").read_text(encoding="utf-8"))
    known = {text["en"] for text in texts}
    assert known == {note for found in shipped.values() for note in found}, "a note has changed: its translations too"
    assert all(set(text) == {"en", *(lang for lang in translations.LANGUAGES if lang != "en")} for text in texts)


@pytest.mark.parametrize("static", static_folders() or [None], ids=lambda p: p and p.parent.name)
def test_an_untouched_note_is_read_in_the_language_of_the_frontend(static):
    source = json.loads((FLOWS / "one_node_text_to_video.json").read_text(encoding="utf-8"))
    texts = json.loads((FLOWS.parent / "web" / "notes.json").read_text(encoding="utf-8"))
    read = """async workflow => {
      await app.loadGraphData(workflow, true, true, null)
      const all = nodes => nodes.flatMap(node => [node, ...all(node.subgraph?._nodes ?? [])])
      return all(app.graph._nodes).filter(n => n.type === "MarkdownNote").map(n => n.widgets[0].value)
    }"""
    with opened(static, extensions=EXTENSIONS, Comfy_Locale="ja") as page:
        assert set(page.evaluate(read, source)) == {t["ja"] for t in texts if t["en"] in notes(source)}
        source["nodes"][[node["type"] for node in source["nodes"]].index("MarkdownNote")]["widgets_values"] = ["mine"]
        assert "mine" in page.evaluate(read, source)
