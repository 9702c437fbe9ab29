// Directing a run from the timeline: what is made, in work and waiting; edits of what is not begun; pause, go on, stop;
// and another take of what is made. The server has the last word: what it refuses, the text does not keep.

import { app } from "../../../scripts/app.js"
import { filmOf, pictures } from "./films.js"
import { el } from "./panel.js"
import { madeBy } from "./settings.js"
import { parse } from "./schedule.js"
import { ask, came, end, present, show, turnTo } from "./score_runs.js"
import { Takes } from "./takes.js"
import { say } from "./words.js"

const SOON = 400 // milliseconds after an edit is finished
const LATER = 2000 // after a key in the text itself, where nothing says that an edit is finished
const SEEDS = 100000

export class Stage {
  constructor(timeline) {
    Object.assign(this, { timeline, state: null, shots: new Map(), instead: null, fault: null })
    const button = (word, title, click) => el("button", { type: "button", title, click }, word)
    this.pause = button(
      say("Pause"), say("The next chunk waits; the one in work is finished"), () => this.tell("pause"))
    this.goOn = button(say("Go on"), say("Ends the pause"), () => this.tell("go_on"))
    this.stop = button(
      say("Stop and keep"), say("Ends the video after the chunk in work, and keeps it"), () => this.tell("stop"))
    this.again = button(
      say("Retake from"), say("A new seed from this chunk on; earlier ones are not made again"), () => this.retake(false))
    this.branch = button(
      say("Branch"), say("As a retake, and the take before stays beside it"), () => this.retake(true))
    this.chunk = el("input", { type: "number", min: "0", value: "0", "aria-label": say("Chunk to retake from") })
    this.chunk.addEventListener("input", () => this.mark())
    const keys = (e) => ["Enter", " ", "Delete", "Backspace"].includes(e.key) && e.stopPropagation() // not the canvas's
    this.bar = el("div", { class: "helios-bar", role: "group", "aria-label": say("The run"), keydown: keys },
      this.pause, this.goOn, this.stop, this.again, this.chunk, this.branch)
    this.takes = new Takes(this)
    this.bar.append(this.takes.toggle)
    this.here = el("div", { class: "helios-here" })
    present(timeline.node, this)
    this.draw()
  }

  get going() {
    return Boolean(this.state) && !this.state.over && !this.state.status.ended
  }

  // How many chunks are made by what the text says; none but these can be retaken.
  get made() {
    const { entries, error } = this.timeline
    if (!this.state || error) return 0
    const { done, text } = this.state.status
    if (text === this.timeline.text) return done
    const used = parse(text).entries
    for (let chunk = 0; chunk < done; chunk++) if (madeBy(used, chunk) !== madeBy(entries, chunk)) return chunk
    return done
  }

  // What the server says of the run of this node.
  take(state) {
    const { timeline } = this
    const { text } = state.status
    this.state = state
    if (text !== state.seen && text !== state.sent) timeline.given(text)
    if (text !== state.seen || state.page === null) state.page = text === state.sent ? text : timeline.text
    state.seen = text
    timeline.draw()
    if (timeline.text !== state.page && !this.timer) this.edited(SOON) // as undo leaves it
  }

  edited(delay = LATER) {
    this.fault = null
    clearTimeout(this.timer)
    this.timer = this.going ? setTimeout(() => this.send(), delay) : null
  }

  // An edit was finished, by a key or a drag: it is sent at once.
  finished() {
    this.edited(SOON)
  }

  // Sends the text for the chunks that are not begun; one that is refused is taken back.
  async send() {
    this.timer = null
    const { state, timeline } = this
    const writing = timeline.drag || timeline.error || document.activeElement === timeline.prompt
    if (!this.going || state.busy || writing || timeline.text === state.page) return
    const text = state.sent = timeline.text
    Object.assign(state, { busy: true, refused: null })
    const place = `runs/${state.run}/${state.node}`
    const answer = await ask(`${place}/score`, { text, base: state.status.text })
    state.busy = false
    if (answer.code === 200) {
      state.page = text
      return came(state.run, state.node, answer)
    }
    if (answer.code === 404) return end(state)
    if (!answer.code) return this.edited() // the connection is lost: again
    Object.assign(state, { refused: answer.error, sent: null })
    const now = await ask(place)
    if (now.code === 200) {
      state.seen = null // so that the text is what the server says, whatever it was
      came(state.run, state.node, now)
    }
    show(state)
  }

  async tell(verb) {
    const { state } = this
    const answer = await ask(`runs/${state.run}/${state.node}/${verb}`, {})
    state.refused = answer.code === 200 ? null : answer.error
    if (answer.code === 200) came(state.run, state.node, answer)
    else show(state)
  }

  // Another seed from a chunk on, and the workflow queued: chunks before it come from the store. keeps: the take before
  // stays beside it.
  async retake(keeps) {
    const chunk = Number(this.chunk.value)
    if (this.going || !(chunk <= this.last)) return
    const text = chunk === this.made ? this.timeline.text : await this.reseeded(chunk) // where it was edited, that is new
    if (text === null) return this.timeline.draw()
    this.instead = keeps ? null : this.state.run
    if (text !== this.timeline.text) this.timeline.given(text)
    await app.queuePrompt(0)
  }

  async reseeded(chunk) {
    const seed = Math.floor(Math.random() * SEEDS)
    const answer = await ask("score/write", { text: this.timeline.text, chunk, seed })
    this.state.refused = answer.code === 200 ? null : answer.error
    return answer.code === 200 ? answer.text : null
  }

  // The last chunk that may be made anew: of those that are made, or the first that the text says something else of.
  get last() {
    const { made } = this
    return this.state && made < this.state.status.done ? made : made - 1
  }

  // Of the takes that lie side by side this one is gone on with: its score is the text.
  chooseTake(run) {
    const one = this.takes.list.find((take) => take.run === run)
    if (one && !this.going) turnTo(this, one)
  }

  // The chunk to retake from, by a press on its number.
  choose(chunk) {
    this.chunk.value = String(Math.max(0, Math.min(chunk, this.last)))
    this.mark()
  }

  mark() {
    const shown = !this.going && this.last >= 0
    const { cells } = this.timeline
    this.here.style.cssText = shown
      ? `left: ${(Number(this.chunk.value) / cells) * 100}%; width: ${100 / cells}%` : "display: none"
  }

  draw() {
    const { going, last } = this
    const again = !going && last >= 0
    const paused = this.state?.status.paused
    const shown = [
      [this.pause, going && !paused], [this.goOn, going && paused], [this.stop, going],
      [this.again, again], [this.chunk, again], [this.branch, again],
    ]
    const focused = document.activeElement
    for (const [part, is] of shown) part.hidden = !is
    if (focused === this.pause && paused) this.goOn.focus()
    if (focused === this.goOn && !paused) this.pause.focus()
    this.chunk.max = String(Math.max(0, last))
    if (again && last === this.made && this.chunk.max !== this.edit) this.chunk.value = this.chunk.max
    this.edit = again && last === this.made ? this.chunk.max : null // from where on the text was edited
    this.mark()
    if (this.film) {
      this.takes.add(this.state.run, this.state.status.text, this.instead === this.state.run ? null : this.instead)
      if (this.instead !== this.state.run) this.instead = null
    }
    this.takes.draw()
  }

  // What is made, in work and waiting, as bars over the cells.
  bars() {
    if (!this.state) return []
    const { done, begun, total, chunks } = this.state.status
    const last = Math.max(begun, total ?? 0, chunks.length)
    const parts = this.going ? [["done", 0, done], ["working", done, begun], ["waiting", begun, last]] : [["done", 0, this.made]]
    return parts.filter(([, from, to]) => to > from).map(([state, from, to]) => {
      const [left, width] = [from, to - from].map((n) => `${(n / this.timeline.cells) * 100}%`)
      return el("div", { class: "helios-state", "data-state": state, style: `left: ${left}; width: ${width}` })
    })
  }

  // What is made so far, to be looked at.
  get film() {
    return this.state && filmOf(this.state.run, this.state.node)
  }

  // A small picture of each chunk that is made.
  pictures() {
    const { film } = this
    if (!film) return []
    return pictures(film, this.timeline.cells, this.going ? Infinity : this.made, this.shots)
  }

  get length() {
    const { total, begun } = this.going ? this.state.status : { total: 0, begun: this.state?.status.done ?? 0 }
    return Math.max(total ?? 0, begun)
  }

  // [what is said under the timeline, whether it is bad], or null.
  said() {
    const refused = this.fault ?? this.state?.refused
    if (refused) return [refused, true]
    if (!this.going) return null
    const { done, begun, total, paused } = this.state.status
    const [working, values] = [begun > done, { chunk: done, done, begun, total: total ?? "…" }]
    if (paused) {
      return [working ? say("Pauses after chunk {chunk}.", values) : say("Paused before chunk {chunk}.", values), false]
    }
    return [working ? say("Chunk {chunk} is in work; {done} of {total} are made.", values)
      : say("{done} of {total} chunks are made.", values), false]
  }
}
