"""Our web extension in ComfyUI's real frontend: the timeline edits the schedule's own text widget and nothing else, the
plots and the filmstrip grow with the events of a run, and none of it is saved or queued."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_video.helios_core.text.directions import said
from helios_video.helios_core.text.prompts import PromptSchedule
from support.frontend import MOUNT
from support.scores import texts
from support.timeline import AGAIN, BLUE, JOINS, QUEUED, RED, SPANS, TEXT, YELLOW

SCORE = "0 [seed 3]: a; 2 (2) [cfg 2, cut]: b;\n 5 [seed 4]: \n7:c"


def test_the_timeline_shows_the_schedule_and_adds_nothing_to_file_or_prompt(browser):
    shown = browser.page.evaluate(SPANS)
    assert [label for *_, label in shown] == [RED, YELLOW, BLUE] and browser.cells() == 7
    assert [edge for *edges, _ in shown for edge in edges] == pytest.approx(
        [0, 1 / 7, 1 / 7, 4 / 7, 4 / 7, 1], abs=0.01
    )
    assert browser.page.locator(".helios-old").count() == 1, "the blend from chunk 1 to 2"
    assert browser.page.evaluate("() => node.serialize().widgets_values") == [TEXT]
    assert browser.page.evaluate(QUEUED) == {"text": TEXT}
    assert browser.page.evaluate("() => document.querySelectorAll('.helios-plot, .helios-shot').length") == 0


def test_dragging_changes_the_text_what_is_queued_and_the_graphs_undo(browser):
    browser.drag("[data-cue='2'] .helios-edge", 1)
    edited = f"0: {RED}\n1 (2): {YELLOW}\n5: {BLUE}"
    assert browser.text == edited and browser.page.evaluate(QUEUED)["text"] == edited
    browser.drag("[data-cue='1'] .helios-blend", 2)
    assert browser.text == edited.replace("(2)", "(4)")
    browser.drag("[data-cue='1'] .helios-label", 9)
    assert browser.text == f"0: {RED}\n3 (4): {YELLOW}\n7: {BLUE}", "with its end, as far as there are cells"
    browser.drag("[data-cue='1'] .helios-label", -9)
    assert browser.text == edited.replace("(2)", "(4)"), "the one before keeps a chunk"
    browser.drag("[data-cue='1'] .helios-blend", -9)
    browser.drag("[data-cue='2'] .helios-label", -1)
    assert browser.text == f"0: {RED}\n1: {YELLOW}\n4: {BLUE}"
    wide = edited.replace("(2)", "(4)")
    for text in (
        f"0: {RED}\n1: {YELLOW}\n5: {BLUE}",
        wide,
        f"0: {RED}\n3 (4): {YELLOW}\n7: {BLUE}",
        wide,
        edited,
        TEXT,
    ):
        browser.page.keyboard.press("Control+z")
        browser.page.wait_for_function("text => area().value == text", arg=text)
    browser.page.wait_for_function("() => document.querySelectorAll('.helios-span').length == 3")


def test_prompts_are_added_written_moved_and_removed_by_mouse_and_keys(browser):
    page, track = browser.page, browser.page.locator(".helios-track").bounding_box()
    page.mouse.dblclick(track["x"] + track["width"] * 3.5 / 7, track["y"] + 40)
    assert browser.text == f"0: {RED}\n1 (2): {YELLOW}\n3: {YELLOW}\n4: {BLUE}"
    page.keyboard.type("a bird; 5: no entry")
    page.locator("[data-cue='3']").focus()
    assert browser.text == f"0: {RED}\n1 (2): {YELLOW}\n3: a bird\\; 5: no entry\n4: {BLUE}"
    assert [label for *_, label in page.evaluate(SPANS)][2] == "a bird; 5: no entry"
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert browser.text.endswith(f"\n5 (2): {BLUE}")
    page.locator("[data-cue='2']").focus()
    page.keyboard.press("Delete")
    assert browser.text == f"0: {RED}\n1 (2): {YELLOW}\n5 (2): {BLUE}", "and the node is still there"
    page.locator("[data-cue='0']").focus()
    page.keyboard.press("Delete")
    assert browser.text == f"0: {YELLOW}\n5 (2): {BLUE}"
    page.keyboard.press("Insert")
    page.locator(".helios-row textarea").fill("   ")
    assert browser.text == f"0: {YELLOW}\n2: {YELLOW}\n5 (2): {BLUE}", "an empty prompt is not written"


@pytest.mark.parametrize("wrong", ["no chunk here", "0: a\n2 (5): b\n4: c", "0: a\n1.5: b", "1: late"])
def test_an_error_is_shown_and_the_text_is_left_alone(browser, wrong):
    browser.load(wrong)
    page = browser.page
    assert page.locator(".helios-note.helios-bad").inner_text().endswith(".")
    assert page.locator(".helios-row textarea").is_disabled() and not page.locator(".helios-edge").count()
    for span in page.locator(".helios-span").all():
        span.focus()
        for key in ("Delete", "ArrowRight", "Insert"):
            page.keyboard.press(key)
    track = page.locator(".helios-track").bounding_box()
    page.mouse.dblclick(track["x"] + track["width"] - 20, track["y"] + 40)
    assert browser.text == wrong


def test_the_plain_widget_stays_the_truth(browser):
    box = browser.page.locator("textarea:not(.helios-row textarea)").filter(visible=True)
    area = next(item for item in box.all() if item.input_value() == TEXT)
    area.fill("0: typed by hand ;\n\n  3(2):more; 16:9\n")
    browser.page.wait_for_function("() => document.querySelectorAll('.helios-span').length == 2")
    assert [label for *_, label in browser.page.evaluate(SPANS)] == ["typed by hand", "more; 16:9"]
    browser.drag("[data-cue='1'] .helios-edge", -1)
    assert browser.text == "0: typed by hand ;\n\n  2(2):more; 16:9\n", "only the number changed"


def test_the_browser_reads_texts_as_the_node_does(started):
    code = "async ([url, texts]) => { const {parse} = await import(url); return texts.map(parse) }"
    for text, read in zip(texts(), started.page.evaluate(code, [f"{MOUNT}/js/schedule.js", texts()])):
        try:
            score = PromptSchedule.parse(text)
        except ValueError:
            assert read["error"], text
            continue
        assert not read["error"], text
        assert [(c["chunk"], c["blend"], c["prompt"], c["settings"]) for c in read["entries"]] == [
            (cue.chunk, cue.blend, cue.prompt, settings(cue.direction)) for cue in score.cues
        ], text
        assert [c["chunk"] for c in read["cues"]] == [cue.chunk for cue in score.shown], text


def settings(direction) -> dict:
    """As the page reads them: a seed is text, a picture a list."""
    kinds = {"seed": str, "image": list}
    return {word: kinds.get(word, lambda value: value)(value) for word, value in said(direction).items()}


def test_the_browser_knows_which_chunks_two_scores_make_alike(started):
    code = """async ([schedule, settings, texts]) => {
      const [{ parse }, { madeBy }] = [await import(schedule), await import(settings)]
      return texts.map(text => [0, 1, 2, 3, 4, 5, 6, 7].map(chunk => madeBy(parse(text).entries, chunk)))
    }"""
    good = [text for text in texts() if fits(text)]
    names = [f"{MOUNT}/js/{name}.js" for name in ("schedule", "settings")]
    for text, read in zip(good, started.page.evaluate(code, [*names, good])):
        score = PromptSchedule.parse(text)
        made = [(score.shares(chunk), replace(score.direction(chunk), end=False)) for chunk in range(8)]
        assert [[a == b for a in read] for b in read] == [[a == b for a in made] for b in made], text


def fits(text: str) -> bool:
    try:
        return bool(PromptSchedule.parse(text))
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("text", "edit", "wanted"),
    [
        (SCORE, "addCue(text, cues, 1, 5, 'n')", SCORE.replace("[seed 4]: ", "[seed 4]: n")),
        (SCORE, "addCue(text, cues, 1, 6, 'n')", SCORE.replace("\n7:", "\n6: n\n7:")),
        (SCORE, "removeCue(text, cues, 1)", SCORE.replace("2 (2) [cfg 2, cut]: b", "2 [cfg 2, cut]: ")),
        (
            SCORE,
            "removeCue(text, cues, 0)",
            SCORE.replace("2 (2) [cfg 2, cut]: b", "2 [cfg 2, cut]: ").replace("a;", "b;"),
        ),
        (SCORE, "removeCue(text, cues, 2)", SCORE.replace("\n7:c", "")),
        (SCORE, "setBlend(text, cues, 1, 1)", SCORE.replace(" (2)", "")),
        (SCORE, "setPrompt(text, cues, 1, 'x; 4 [seed 3]: y')", SCORE.replace(" b;", " x\\; 4 [seed 3]: y;")),
        (SCORE, "setChunks(text, cues, new Map([[1, 3]]))", SCORE.replace("2 (2)", "3 (2)")),
        (SCORE, "setChunks(text, cues, new Map([[1, 6]]))", None),
    ],
)
def test_an_edit_leaves_settings_as_they_stand(started, text, edit, wanted):
    code = f"""async ([url, text]) => {{
      const {{ parse, addCue, removeCue, setBlend, setPrompt, setChunks }} = await import(url)
      const {{ cues }} = parse(text)
      return {edit}
    }}"""
    assert started.page.evaluate(code, [f"{MOUNT}/js/schedule.js", text]) == wanted


def test_settings_are_marks_and_never_text_of_a_prompt(browser):
    browser.load(SCORE)
    assert [label for *_, label in browser.page.evaluate(SPANS)] == ["a", "b", "c"]
    shown = browser.page.locator(".helios-marks").all()
    assert [mark.inner_text().split("\n") for mark in shown] == [["#3"], ["cfg 2", "\u2702"], ["#4"]]
    assert browser.page.locator("[data-cue='1']").get_attribute("aria-label") == (
        "chunk 2: b; chunk 2: guidance 2, a new scene; chunk 5: take: seed 4"
    )
    buttons = browser.page.locator(".helios-bar button").filter(visible=True)
    assert buttons.all_inner_texts() == ["Watch"], "no run, no other buttons"


def test_filmstrip_and_joints_grow_with_the_run(browser):
    page, names = browser.page, []
    sizes = page.evaluate("ids => ids.map(id => app.graph.getNodeById(id).serialize().widgets_values)", list(JOINS))
    for i, node in enumerate(JOINS):
        names.append(f"chunk_{i:04d}")
        browser.send(
            "helios-video.chunk", node=node, folder="helios/r", names=names, jump=2.5 + i if i else None, inside=1.2
        )
        drawn = i + 1 + sum(range(1, i + 1))
        page.wait_for_function(
            "n => [...document.querySelectorAll('.helios-shot img')].filter(p => p.complete).length == n", arg=drawn
        )
    assert page.locator(".helios-plot circle").count() == 1 + 2 + 3
    address = page.locator(".helios-shot img").last.get_attribute("src")
    assert address.endswith("/view?filename=chunk_0003.jpg&subfolder=helios%2Fr&type=temp")
    after = page.evaluate("ids => ids.map(id => app.graph.getNodeById(id).serialize().widgets_values)", list(JOINS))
    assert after == sizes
    page.evaluate(AGAIN)
    page.wait_for_function("() => document.querySelectorAll('.helios-shot img').length == 10")


def test_the_drift_plot_grows_and_a_new_run_starts_anew(browser):
    page = browser.page
    ids = page.evaluate("""() => [0, 1].map(i => {
      const node = LiteGraph.createNode("AntiDrift")
      node.pos = [400 * i, 1000]
      app.graph.add(node)
      if (i) app.graph.getNodeById(window.first).connect(0, node, 0)
      window.first = node.id
      return String(node.id)
    })""")
    limits = dict(mean_threshold=0.15, variance_threshold=0.15)
    for node, chunk in [(ids[0], 0), (ids[1], 1), (ids[1], 2), (ids[1], 3)]:
        far = dict(mean=0.1 * chunk, variance=0.1 * chunk, first_mean=0.2, first_variance=0.2, found=chunk == 3)
        browser.send("helios-video.drift", node=node, chunk=chunk, **far, **limits)
    count = "n => document.querySelectorAll('.helios-plot circle').length == n"
    page.wait_for_function(count, arg=2 * 1 + 2 * 4)  # the second node shows the first one's chunk too
    assert page.locator(".helios-plot circle.helios-found").count() == 2
    browser.send("helios-video.drift", node=ids[1], chunk=1, **{**far, "found": False}, **limits)
    page.wait_for_function(count, arg=2 * 1 + 2 * 2)
    browser.send("helios-video.drift", node="999", chunk=1, **far, **limits)  # of a graph that is not on screen
    browser.send("helios-video.drift", node=JOINS[0], chunk=1, **far, **limits)
    page.wait_for_timeout(300)
    assert page.evaluate(count, 2 * 1 + 2 * 2)
