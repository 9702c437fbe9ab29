// What shows while a run goes on: AntiDrift's plot of the drift, ChunkConcat's filmstrip and plot of the joints. Both
// grow by the events of nodes/live.py. Their places are there from the start, so that a run makes no node larger.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { addPanel, el, fit } from "./panel.js"
import { afterLoading, find, kept, tab, tabOf, watchQueue } from "./run.js"
import { say } from "./words.js"

const PANELS = {
  AntiDrift: { name: "drift", height: 96, draw: drawDrift, empty: "The drift is drawn here." },
  ChunkConcat: { name: "filmstrip", height: 128, draw: drawClip, empty: "The chunks are shown here." },
}
const ROOM = { DMDPyramidSample: 240, ChunkConcat: 330 } // for what the frontend itself shows: a preview, a video
const LEAST_WIDTH = 300

const SHOWN = new WeakMap() // a node on screen -> what it shows: the points of a drift, or {folder, names} of a clip
const JOINTS = new Map() // {jump, inside} by a chunk's address

function reserve(node) {
  const panel = PANELS[node.comfyClass]
  if (panel) {
    node.heliosPanel = el("div", { class: "helios-panel" }, el("div", { class: "helios-empty" }, say(panel.empty)))
    addPanel(node, panel.name, node.heliosPanel, panel.height)
    new ResizeObserver(() => node.graph && SHOWN.has(node) && panel.draw(node)).observe(node.heliosPanel)
    fit(node)
  }
  const room = ROOM[node.comfyClass]
  if (room) node.setSize([Math.max(node.size[0], LEAST_WIDTH), node.size[1] + room])
}

// Everything that came for the nodes of the tab on screen.
function showAll() {
  for (const type of Object.keys(PANELS)) {
    const found = [...kept(type)].map(([id, what]) => [find(id, type), what]).filter(([node]) => node?.heliosPanel)
    for (const [node, what] of found) SHOWN.set(node, what)
    for (const [node] of found) PANELS[type].draw(node)
  }
}

function came(type, { node: id, prompt }, change) {
  const from = tabOf(prompt)
  const here = kept(type, from)
  here.set(String(id), change(here.get(String(id))))
  if (from === tab()) showAll()
}

function drift({ node, prompt, ...point }) {
  // A chunk that comes again begins a new run from there on; those before it came from ComfyUI's cache.
  came("AntiDrift", { node, prompt }, (before = []) => [...before.filter((p) => p.chunk < point.chunk), point])
}

function chunk({ node, prompt, folder, names, jump, inside }) {
  JOINTS.set(`${folder}/${names.at(-1)}`, { jump, inside })
  came("ChunkConcat", { node, prompt }, () => ({ folder, names }))
}

// The points of this node, after those of the nodes that its history went through before.
function points(node, seen = new Set()) {
  if (!node || seen.has(node)) return []
  seen.add(node)
  const own = SHOWN.get(node) ?? []
  const slot = node.inputs?.findIndex((input) => input.type === "HELIOS_HISTORY") ?? -1
  const before = slot < 0 ? [] : points(node.getInputNode(slot), seen)
  return [...before.filter((p) => !own.length || p.chunk < own[0].chunk), ...own]
}

function drawDrift(node) {
  const all = points(node)
  const last = all.at(-1)
  const found = all.filter((p) => p.found).map((p) => p.chunk)
  const line = (key, look) => ({ look, values: all.map((p) => [p.chunk, p[key]]), marked: found })
  const lines = [
    line("first_mean", "helios-a helios-faint"), line("first_variance", "helios-b helios-faint"),
    line("mean", "helios-a"), line("variance", "helios-b"),
  ]
  const limits = [[last.mean_threshold, "helios-a"], [last.variance_threshold, "helios-b"]]
  const said = !found.length ? say("no drift")
    : found.length > 3 ? say("drift in {n} chunks", { n: found.length })
      : say("drift in chunk {chunks}", { chunks: found.join(", ") })
  const note = legend([[say("means"), last.mean, "helios-a"], [say("variances"), last.variance, "helios-b"]], said)
  note.title = say(
    "How far a chunk's means and variances are from the running ones (solid) and from the first chunk's (dashed); " +
    "dotted: the thresholds. Chunks are counted from 0.")
  node.heliosPanel.replaceChildren(plot(node.heliosPanel, lines, limits), note)
}

function drawClip(node) {
  const { folder, names } = SHOWN.get(node)
  const strip = el("div", { class: "helios-strip" }, ...names.map((name, i) => shot(folder, name, i)))
  const all = names.map((name, i) => [i, JOINTS.get(`${folder}/${name}`)])
  const joints = all.filter(([, joint]) => joint?.jump != null)
  const line = (key, look) => ({ look, values: joints.map(([i, joint]) => [i, joint[key]]), marked: [] })
  const lines = [line("inside", "helios-b helios-faint"), line("jump", "helios-a")]
  const last = joints.at(-1)?.[1]
  const note = last
    ? legend([[say("joint"), last.jump, "helios-a", " %"], [say("inside"), last.inside, "helios-b", " %"]])
    : legend([], say("no joint yet"))
  note.title =
    say("How much a pixel changes on average: over the joint before a chunk, and between the chunk's own frames.")
  node.heliosPanel.replaceChildren(strip, plot(node.heliosPanel, lines), note)
  strip.scrollLeft = strip.scrollWidth
}

// The end of a chunk; a place with a number where its picture is gone from the temp folder.
function shot(folder, name, i) {
  const query = new URLSearchParams({ filename: `${name}.jpg`, subfolder: folder, type: "temp" })
  const picture = el("img", {
    src: api.apiURL(`/view?${query}`), alt: say("end of chunk {i}", { i }), draggable: "false", error: (e) => e.target.remove(),
  })
  return el("div", { class: "helios-shot", title: say("chunk {i}", { i }) }, picture, el("span", {}, String(i)))
}

function legend(entries, said = "") {
  const parts = entries.map(([name, value, look, unit = ""]) =>
    el("span", { class: look }, `● ${name} ${value.toFixed(unit ? 1 : 3)}${unit} `))
  return el("div", { class: "helios-note" }, ...parts, said)
}

// Lines over chunks, [chunk, value] each, in the panel's own pixels; limits: [value, look].
function plot(panel, lines, limits = []) {
  const [width, height, left] = [panel.clientWidth || 200, panel.querySelector(".helios-plot")?.clientHeight || 50, 26]
  const values = lines.flatMap((line) => line.values)
  const top = Math.max(...values.map(([, y]) => y), ...limits.map(([y]) => y), 1e-3) * 1.1
  const [first, last] = [values[0]?.[0] ?? 0, Math.max(values.at(-1)?.[0] ?? 1, (values[0]?.[0] ?? 0) + 1)]
  const x = (chunk) => left + ((chunk - first) / (last - first)) * (width - left - 8)
  const y = (value) => height - 12 - (value / top) * (height - 18)
  const svg = el("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img" })
  const scale = [label(2, 10, top.toPrecision(2)), label(2, height - 10, "0"), label(left, height - 1, first)]
  if (values.length) svg.append(...scale)
  if (values.at(-1)?.[0] === last) svg.append(label(width - 14, height - 1, last))
  const path = (look, d) => svg.append(el("svg:path", { class: look, d }))
  for (const [value, look] of limits) path(`${look} helios-limit`, `M${left} ${y(value)}H${width - 8}`)
  for (const { look, values, marked } of lines) {
    path(look, values.map(([c, v], i) => `${i ? "L" : "M"}${x(c)} ${y(v)}`).join(""))
    if (look.includes("faint")) continue
    for (const [c, v] of values) {
      const words = `${say("chunk {i}", { i: c })}: ${v.toPrecision(3)}`
      const mark = { class: marked.includes(c) ? `${look} helios-found` : look, cx: x(c), cy: y(v), r: 2.5 }
      svg.append(el("svg:circle", mark, el("svg:title", {}, words)))
    }
  }
  return el("div", { class: "helios-plot" }, svg)
}

const label = (x, y, text) => el("svg:text", { x, y }, String(text))

app.registerExtension({
  name: "helios-video.live",
  setup() {
    api.addEventListener("helios-video.drift", ({ detail }) => drift(detail))
    api.addEventListener("helios-video.chunk", ({ detail }) => chunk(detail))
    watchQueue()
    afterLoading(showAll)
  },
  nodeCreated: reserve,
})
