// The timeline of HeliosPromptSchedule: chunks are cells, prompts spans. The node's own text widget stays the truth: it
// is what is saved and queued, and what this reads after every change; a text with an error is shown and left alone.

import { app } from "../../../scripts/app.js"
import { ruler, settingsMarks, settingsSaid } from "./cells.js"
import { addPanel, after, el } from "./panel.js"
import { acceptDrops, pictureButton } from "./pictures.js"
import { addCue, limits, parse, removeCue, setBlend, setChunks, setPrompt } from "./schedule.js"
import { Stage } from "./stage.js"
import { HEIGHT as TAKES } from "./takes.js"
import { say } from "./words.js"

const HEIGHT = 168
const LEAST_CELLS = 6
const TWICE = 400 // milliseconds between the presses of a double click
const HELP =
  "Drag a span, its left edge or its diamond, the first chunk that shows it alone. Double-click: a new prompt. " +
  "Keys: Left and Right where it begins, with Shift how long it blends; Insert, Delete, Enter, Tab."
const WIRED = "The text comes over a wire: edit it where it comes from."
const clamp = (value, [least, most]) => Math.max(least, Math.min(most, value))

class Timeline {
  constructor(node, widget) {
    Object.assign(this, { node, widget, chosen: 0, drag: null, pressed: -TWICE })
    this.track = el("div", {
      class: "helios-track", role: "listbox", "aria-label": say("Prompts over chunks"), title: say(HELP),
      keydown: (e) => this.key(e), pointerdown: (e) => this.grab(e), pointermove: (e) => this.pull(e),
      mousedown: (e) => e.preventDefault(), // else the browser takes the focus from the span, which is drawn anew
      lostpointercapture: () => this.drop(), focusin: (e) => this.choose(e.target.dataset.cue),
    })
    this.prompt = el("textarea", {
      "aria-label": say("Prompt of the chosen span"), input: () => this.type(), change: () => this.finish(),
      blur: () => (this.fill(), this.stage.finished()), // to draw everything anew would take the focus from the span that gets it
    })
    this.plus = el("button", { type: "button", title: say("Add a prompt (Insert)"), click: () => this.add() }, "+")
    const remove = { type: "button", title: say("Remove this prompt (Delete)"), click: () => this.remove() }
    this.minus = el("button", remove, "−")
    this.note = el("div", { class: "helios-note", role: "status" })
    this.row = el("div", { class: "helios-row" }, this.prompt, this.plus, this.minus, pictureButton(this))
    acceptDrops(this)
    this.stage = new Stage(this)
    const foot = el("div", { class: "helios-foot" }, this.note, this.stage.bar)
    const panel = el("div", { class: "helios-panel" }, this.track, this.row, foot, this.stage.takes.panel)
    addPanel(node, "timeline", panel, () => HEIGHT + (this.stage.takes.open ? TAKES : 0))
    after(widget, "callback", () => (this.draw(), this.own || this.stage.edited()))
    after(node, "onConfigure", () => this.draw())
    after(node, "onConnectionsChange", () => this.draw())
    this.draw()
  }

  get text() {
    return String(this.widget.value ?? "")
  }

  // Writes a text that an edit gave; null is an edit that could not be made.
  write(text) {
    if (text === null || text === this.text) return this.draw()
    this.own = true
    this.widget.value = text
    this.widget.callback?.(text)
    this.own = false
    this.draw() // some widgets tell of their new value later
    this.node.graph?.setDirtyCanvas(true, true)
  }

  // A text that the server gave: nothing is sent.
  given(text) {
    this.drag = null
    this.write(text)
    this.fill()
    commit()
  }

  finish() {
    commit()
    this.stage.finished()
  }

  draw() {
    const wired = this.node.inputs?.some((input) => input.widget?.name === this.widget.name && input.link != null)
    const { cues, entries, error } = wired ? { cues: [], entries: [], error: say(WIRED) } : parse(this.text)
    const chosen = clamp(this.chosen, [0, Math.max(0, cues.length - 1)])
    Object.assign(this, { cues, entries, error, read: this.text, chosen })
    const ends = [...cues.map((cue) => cue.chunk + (cue.blend || 1) + 2), ...entries.map((entry) => entry.chunk + 1)]
    if (!this.drag) this.cells = Math.max(LEAST_CELLS, this.stage.length, ...ends)
    const focused = this.track.contains(document.activeElement)
    const [numbers, bars, settings] = [ruler(this.cells), this.stage.bars(), settingsMarks(entries, this.cells)]
    const under = [...numbers, ...this.stage.pictures(), ...bars, this.stage.here, ...settings]
    this.track.replaceChildren(...under, ...cues.map((_, i) => this.span(i)))
    this.stage.draw()
    if (focused) this.focus()
    const cue = cues[this.chosen]
    const editable = Boolean(cue) && !error
    this.prompt.disabled = this.plus.disabled = !editable
    this.minus.disabled = !editable || cues.length < 2
    if (document.activeElement !== this.prompt) this.fill()
    const [said, bad] = error ? [error, true] : this.stage.said() ?? [this.said(cue), false]
    this.note.textContent = said
    this.note.title = bad ? said : say(HELP)
    this.note.classList.toggle("helios-bad", bad)
  }

  fill() {
    this.prompt.value = this.cues[this.chosen]?.prompt ?? ""
  }

  said(cue) {
    if (!cue.chunk) return say("From the start.")
    return cue.blend > 1 ? say("From chunk {chunk} on, blended in over {blend} chunks.", cue)
      : say("From chunk {chunk} on, a cut.", cue)
  }

  // The span of cue i, with the prompt before it above the stairs of its blend.
  span(i) {
    const cue = this.cues[i]
    const length = Math.max(0, (this.cues[i + 1]?.chunk ?? this.cells) - cue.chunk)
    const percent = (chunks) => `${length ? (chunks / length) * 100 : 0}%`
    const parts = [el("span", { class: "helios-label" }, cue.prompt)]
    if (cue.blend > 1 && i && !this.error) {
      const steps = Math.min(cue.blend, 200)
      const stairs = Array.from({ length: steps }, (_, k) =>
        [k, k + 1].map((at) => `${(at / steps) * 100}% ${(1 - (k + 1) / steps) * 100}%`))
      const style = `${hue(this.cues, i - 1)}; width: ${percent(cue.blend)}; clip-path: polygon(0 0, ${stairs}, 100% 0)`
      parts.unshift(el("div", { class: "helios-old", style }))
    }
    if (i && !this.error) {
      parts.push(el("div", { class: "helios-edge", title: say("Where this prompt begins") }))
      const style = `left: ${percent(cue.blend - 1)}`
      parts.push(el("div", { class: "helios-blend", title: say("The first chunk that shows it alone"), style }))
    }
    const about = settingsSaid(this.entries, this.cues, i)
    const [left, width] = [cue.chunk, length].map((chunks) => `${(chunks / this.cells) * 100}%`)
    return el("div", {
      class: this.error ? "helios-span helios-dim" : "helios-span", "data-cue": i, tabindex: "0", role: "option",
      "aria-selected": String(i === this.chosen),
      "aria-label": [`${say("chunk {i}", { i: cue.chunk })}: ${cue.prompt}`, ...about].join("; "),
      title: [cue.prompt, ...about, "", say(HELP)].join("\n"), style: `left: ${left}; width: ${width}; ${hue(this.cues, i)}`,
    }, ...parts)
  }

  focus() {
    this.track.querySelector(`[data-cue="${this.chosen}"]`)?.focus({ preventScroll: true })
  }

  choose(i) {
    if (i === undefined || Number(i) === this.chosen) return
    this.chosen = Number(i)
    this.draw()
  }

  at(event) {
    const box = this.track.getBoundingClientRect() // as shown: the canvas scales it
    return ((event.clientX - box.left) / box.width) * this.cells
  }

  // The text may have been changed by something that told nobody.
  sync() {
    if (this.read !== this.text) this.draw()
  }

  grab(event) {
    this.sync()
    const span = event.target.closest("[data-cue]")
    if (event.button || this.error) return
    // A dblclick never comes: the first press draws its target anew.
    if (event.timeStamp - this.pressed < TWICE) return this.add(Math.floor(this.at(event)))
    this.pressed = event.timeStamp
    if (!span) return this.stage.choose(Math.floor(this.at(event)))
    const i = Number(span.dataset.cue)
    const kind = ["helios-edge", "helios-blend"].find((name) => event.target.classList.contains(name)) ?? "span"
    this.track.setPointerCapture(event.pointerId)
    this.drag = { i, kind, from: this.at(event), cues: this.cues, text: this.text }
    this.choose(i)
    this.focus()
  }

  // Always from the text as it was at the start of the drag, so that going back undoes what was passed on the way.
  pull(event) {
    if (!this.drag) return
    const { i, kind, from, cues, text } = this.drag
    const steps = Math.round(this.at(event) - from)
    if (steps) this.pressed = -TWICE // the press was a drag's, not the first of a double click
    const limit = limits(cues, i)
    const end = this.cells - 1 // no further than what is on screen; the next drag sees more
    if (kind === "helios-blend") {
      const blend = clamp(Math.min(cues[i].blend + steps, end - cues[i].chunk + 1), limit.blend)
      return this.write(blend === cues[i].blend ? text : setBlend(text, cues, i, blend))
    }
    if (kind === "helios-edge") {
      const chunk = clamp(Math.min(cues[i].chunk + steps, end), limit.chunk)
      return this.write(setChunks(text, cues, new Map([[i, chunk]])))
    }
    if (i) this.write(moved(text, cues, i, Math.min(steps, end - (cues[i + 1] ?? cues[i]).chunk)))
  }

  drop() {
    if (!this.drag) return
    this.drag = null
    this.draw()
    this.finish()
  }

  key(event) {
    const i = this.chosen
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
    const does = {
      Enter: () => this.prompt.focus(),
      Insert: () => this.add(),
      Delete: () => this.remove(),
      Backspace: () => this.remove(),
    }[event.key] ?? (step && (() => (event.shiftKey ? this.blend(i, step) : this.move(i, step))))
    if (!does || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    event.stopPropagation() // Delete would delete the node
    this.sync()
    if (!this.error) does()
  }

  move(i, step) {
    const chunk = clamp(this.cues[i].chunk + step, limits(this.cues, i).chunk)
    if (chunk !== this.cues[i].chunk) this.edit(setChunks(this.text, this.cues, new Map([[i, chunk]])))
  }

  blend(i, step) {
    const blend = clamp(this.cues[i].blend + step, limits(this.cues, i).blend)
    if (blend !== this.cues[i].blend) this.edit(setBlend(this.text, this.cues, i, blend))
  }

  // A new prompt from a chunk on, a copy of the one there, so that the video stays as it is until the copy is changed.
  add(at) {
    this.sync()
    if (this.error) return
    const chunk = at ?? this.room()
    const i = this.cues.findLastIndex((cue) => cue.chunk <= chunk)
    if (i < 0 || chunk < this.cues[i].chunk + this.cues[i].blend) return
    this.chosen = i + 1
    this.edit(addCue(this.text, this.cues, i, chunk, this.cues[i].prompt))
    this.prompt.focus()
    this.prompt.select()
  }

  // The middle of the chosen span where it has room for another one, else behind the last prompt.
  room() {
    const { chunk, blend } = this.cues[this.chosen]
    const [least, end] = [chunk + blend, this.cues[this.chosen + 1]?.chunk ?? chunk + blend + 1]
    const last = this.cues.at(-1)
    return least < end ? Math.max(least, Math.floor((chunk + end) / 2)) : last.chunk + last.blend
  }

  remove() {
    this.sync()
    if (this.error || this.cues.length < 2) return
    const text = removeCue(this.text, this.cues, this.chosen)
    this.chosen = Math.max(0, this.chosen - 1)
    this.edit(text)
  }

  // An empty prompt would be an error: while the box is empty the text keeps the last one.
  type() {
    this.sync()
    if (this.error || !this.prompt.value.trim()) return
    this.write(setPrompt(this.text, this.cues, this.chosen, this.prompt.value))
  }

  edit(text) {
    this.write(text)
    this.finish()
  }
}

// A span goes with both its ends, between its neighbours' blends.
function moved(text, cues, i, steps) {
  const next = cues[i + 1]
  const most = Math.min(cues[i].most - cues[i].chunk, next ? limits(cues, i + 1).chunk[1] - next.chunk : Infinity)
  const least = Math.max(limits(cues, i).chunk[0] - cues[i].chunk, next ? next.least - next.chunk : -Infinity)
  steps = clamp(steps, [least, most])
  const chunks = new Map([[i, cues[i].chunk + steps]])
  if (next) chunks.set(i + 1, next.chunk + steps)
  return setChunks(text, cues, chunks)
}

// The same prompt has the same colour wherever it comes again.
function hue(cues, i) {
  return `--hue: ${(210 + 137 * cues.findIndex((cue) => cue.prompt === cues[i].prompt)) % 360}`
}

// A step of the graph's own undo.
function commit() {
  app.canvas.emitBeforeChange?.()
  app.canvas.emitAfterChange?.()
}

app.registerExtension({
  name: "helios-video.timeline",
  nodeCreated(node) {
    const widget = node.comfyClass === "HeliosPromptSchedule" && node.widgets?.find((w) => w.name === "text")
    if (widget) new Timeline(node, widget)
  },
})
