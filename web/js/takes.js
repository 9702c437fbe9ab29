// The takes of a run, side by side under its timeline: they are played in step while the newest grows, and one is chosen.
// Which they are, with the score of each, is saved with the workflow.

import { filmOf } from "./films.js"
import { el, fit } from "./panel.js"
import { Player } from "./player.js"
import { say } from "./words.js"

export const HEIGHT = 176
const MOST = 4
const APART = 0.08 // seconds that two takes may be apart
const KEEPS = "helios_takes" // of a node's properties: [{run, text}], the oldest first
const OPEN = "helios_watch"
const [PLAY, PAUSE, NEWEST] = ["M0 0L8 4L0 8Z", "M0 0H3V8H0ZM5 0H8V8H5Z", "M0 0L6 4L0 8ZM6 0H8V8H6Z"] // no font has them all
const icon = (d) => el("svg:svg", { class: "helios-icon", viewBox: "0 0 8 8" }, el("svg:path", { d }))

export class Takes {
  constructor(stage) {
    Object.assign(this, { stage, node: stage.timeline.node, players: new Map(), cards: new Map(), wanted: true })
    const button = (word, title, click) => el("button", { type: "button", title, "aria-label": title, click }, word)
    this.toggle = button(say("Watch"), say("Shows the video while it grows, and the takes side by side"), () => this.flip())
    this.play = button(icon(PLAY), say("Play and pause"), () => this.run(!this.wanted))
    this.newest = button(icon(NEWEST), say("To the newest chunk"), () => this.seek(this.edge()))
    this.slider = el("input", { type: "range", min: "0", step: "0.01", "aria-label": say("Where it plays"), input: () => this.seek() })
    this.note = el("div", { class: "helios-time", role: "status" })
    this.row = el("div", { class: "helios-takes" })
    const foot = el("div", { class: "helios-bar" }, this.play, this.slider, this.newest, this.note)
    this.panel = el("div", { class: "helios-viewer", role: "group", "aria-label": say("The takes") }, this.row, foot)
  }

  get open() {
    return Boolean(this.node.properties?.[OPEN])
  }

  get list() {
    const found = this.node.properties?.[KEEPS]
    return Array.isArray(found) ? found.filter((one) => typeof one?.run === "string" && typeof one.text === "string") : []
  }

  set list(list) {
    this.node.properties ??= {}
    this.node.properties[KEEPS] = list
  }

  flip() {
    this.node.properties ??= {}
    this.node.properties[OPEN] = !this.open
    this.draw()
    fit(this.node)
  }

  // A run has the score `text`. instead: the take whose place it has.
  add(run, text, instead = null) {
    const before = this.list.find((one) => one.run === run)
    if (before?.text === text && !instead) return
    const others = this.list.filter((one) => one.run !== instead)
    const added = before ? others.map((one) => (one.run === run ? { run, text } : one)) : [...others, { run, text }]
    this.list = added.slice(-MOST)
  }

  remove(run) {
    this.list = this.list.filter((one) => one.run !== run)
    this.draw()
  }

  film(run) {
    return filmOf(run, this.stage.state?.node)
  }

  // The take that the others follow: the one on the timeline, if it is played.
  get first() {
    return this.players.get(this.stage.state?.run) ?? [...this.players.values()].at(-1)
  }

  draw() {
    this.panel.hidden = !this.open
    this.panel.parentNode?.heliosHeight?.()
    this.toggle.setAttribute("aria-pressed", String(this.open))
    const shown = this.open ? this.list : []
    for (const run of [...this.cards.keys()]) if (!shown.some((one) => one.run === run)) this.drop(run)
    for (const [i, one] of shown.entries()) this.card(one, i)
    const cards = shown.map((one) => this.cards.get(one.run).card)
    for (const card of [...this.row.children]) if (!cards.includes(card)) card.remove()
    for (const card of cards) if (card.parentNode !== this.row) this.row.append(card) // a video that is moved would stop
    if (this.open && !cards.length) {
      this.row.append(el("div", { class: "helios-empty" }, say("The video is shown here while it is made.")))
    }
    this.tell()
  }

  card({ run, text }, i) {
    if (!this.cards.has(run)) {
      const choose = el("button", { type: "button", click: () => this.stage.chooseTake(run) }, say("Choose"))
      const away = el("button", { type: "button", title: say("Take it away"), "aria-label": say("Take it away"), click: () => this.remove(run) }, "×")
      const name = el("span", { class: "helios-name" })
      const place = el("div", { class: "helios-screen" }, say("It is made again when it is chosen and queued."))
      const card = el("div", { class: "helios-take", role: "group" }, place, el("div", { class: "helios-bar" }, name, choose, away))
      this.cards.set(run, { card, place, name, choose, away })
    }
    const { card, place, name, choose, away } = this.cards.get(run)
    const chosen = run === this.stage.state?.run
    const film = this.film(run)
    const words = say("take {n}", { n: i + 1 })
    name.textContent = words
    card.title = text
    card.setAttribute("aria-label", `${words}: ${text}`)
    card.setAttribute("aria-current", String(chosen))
    choose.hidden = chosen || this.stage.going
    away.hidden = chosen
    if (!film || !window.MediaSource) return
    if (this.players.has(run)) return this.players.get(run).grow(film)
    const player = new Player(film)
    this.players.set(run, player)
    place.replaceChildren(player.video)
    this.follow(player)
  }

  drop(run) {
    this.players.get(run)?.close()
    this.players.delete(run)
    this.cards.delete(run)
  }

  // A new player goes where the others are, or they begin anew with it.
  follow(player) {
    const { video } = player
    const lead = [...this.players.values()].find((one) => one !== player)
    for (const event of ["timeupdate", "waiting", "playing", "progress"]) video.addEventListener(event, () => this.step(player))
    video.addEventListener("ended", () => player === this.first && this.run(false))
    this.wanted ||= !player.film.over
    if (lead) this.seek(lead.video.ended || lead.video.currentTime > player.made ? 0 : lead.video.currentTime)
    this.run(this.wanted)
  }

  // In step: what the first does, the others do.
  step(player) {
    if (player !== this.first) return
    for (const other of this.players.values()) {
      if (other === player) continue
      const to = Math.min(player.video.currentTime, other.made)
      if (Math.abs(other.video.currentTime - to) > APART) other.video.currentTime = to
      const still = !this.wanted || player.video.readyState < 3 || to >= other.made
      if (still !== other.video.paused) still ? other.video.pause() : other.video.play().catch(() => {})
    }
    this.tell()
  }

  run(wanted) {
    this.wanted = wanted
    const { first } = this
    if (wanted && first?.film.over && first.video.currentTime >= first.made - APART) this.seek(0)
    for (const { video } of this.players.values()) wanted ? video.play().catch(() => {}) : video.pause()
    this.tell()
  }

  seek(to = Number(this.slider.value)) {
    for (const player of this.players.values()) player.video.currentTime = Math.min(to, player.made)
    this.tell()
  }

  // Where the newest chunk begins.
  edge() {
    const { first } = this
    return first ? first.start(first.ends.length - 1) : 0
  }

  tell() {
    const { first } = this
    this.play.firstChild.replaceWith(icon(this.wanted ? PAUSE : PLAY))
    this.play.setAttribute("aria-pressed", String(this.wanted))
    for (const part of [this.play, this.slider, this.newest]) part.disabled = !first
    if (!first) return (this.note.textContent = "")
    const [now, { made }] = [first.video.currentTime, first]
    this.slider.max = String(Math.max(made, now))
    if (document.activeElement !== this.slider || this.wanted) this.slider.value = String(now)
    const values = { now: now.toFixed(1), made: made.toFixed(1), behind: Math.max(0, made - now).toFixed(1) }
    this.note.textContent = first.film.over ? say("{now} of {made} s", values) : say("{behind} s behind", values)
    this.note.title = say("Played: {now} s; made: {made} s", values)
  }
}
