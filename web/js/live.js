// What shows while a run goes on: AntiDrift's plot of the drift, ChunkConcat's filmstrip and plot of the joints. Both
// grow by the events of nodes/live.py. Before the first one a node has neither, and stays as small as it was saved.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { addPanel, el, fit } from "./panel.js"

// What has arrived, by node. Not kept on the nodes: undo and a change of tabs make those anew.
const DRIFT = new Map() // the points of this node, in the order of their chunks
const CLIPS = new Map() // {folder, names}: the chunks of the video so far
const JOINTS = new Map() // {jump, inside} by a chunk's address

const keyOf = (node) => `${node.graph?.id}/${node.id}`
const PANELS = {
  AntiDrift: { name: "drift", height: 96, known: DRIFT, draw: drawDrift },
  ChunkConcat: { name: "filmstrip", height: 128, known: CLIPS, draw: drawClip },
}

// A node of the graph on screen by the id that the server knows, "4" or, inside subgraphs, "7:4".
function find(id, type) {
  let graph = app.rootGraph ?? app.graph
  let node = null
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part))
    graph = node?.subgraph
  }
  return node?.comfyClass === type ? node : null
}

function show(node) {
  const panel = PANELS[node.comfyClass]
  if (!panel?.known.has(keyOf(node))) return
  if (!node.heliosPanel) {
    node.heliosPanel = el("div", { class: "helios-panel" })
    addPanel(node, panel.name, node.heliosPanel, panel.height)
    fit(node)
    new ResizeObserver(() => show(node)).observe(node.heliosPanel)
  }
  panel.draw(node)
}

function drift({ node: id, ...point }) {
  const node = find(id, "AntiDrift")
  if (!node) return
  // A chunk that comes again begins a new run from there on; those before it came from ComfyUI's cache.
  const before = (DRIFT.get(keyOf(node)) ?? []).filter((p) => p.chunk < point.chunk)
  DRIFT.set(keyOf(node), [...before, point])
  show(node)
}

function chunk({ node: id, folder, names, jump, inside }) {
  JOINTS.set(`${folder}/${names.at(-1)}`, { jump, inside })
  const node = find(id, "ChunkConcat")
  if (!node) return
  CLIPS.set(keyOf(node), { folder, names })
  show(node)
}

// The points of this node, after those of the nodes that its history went through before.
function points(node, seen = new Set()) {
  if (!node || seen.has(node)) return []
  seen.add(node)
  const own = DRIFT.get(keyOf(node)) ?? []
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
  const where = found.length > 3 ? `${found.length} chunks` : `chunk ${found.join(", ")}`
  const said = found.length ? `drift in ${where}` : "no drift"
  const note = legend([["means", last.mean, "helios-a"], ["variances", last.variance, "helios-b"]], said)
  note.title =
    "How far a chunk's means and variances are from the running ones (solid) and from the first chunk's (dashed); " +
    "dotted: the thresholds. Chunks are counted from 0."
  node.heliosPanel.replaceChildren(plot(node.heliosPanel, lines, limits), note)
}

function drawClip(node) {
  const { folder, names } = CLIPS.get(keyOf(node))
  const strip = el("div", { class: "helios-strip" }, ...names.map((name, i) => shot(folder, name, i)))
  const all = names.map((name, i) => [i, JOINTS.get(`${folder}/${name}`)])
  const joints = all.filter(([, joint]) => joint?.jump != null)
  const line = (key, look) => ({ look, values: joints.map(([i, joint]) => [i, joint[key]]), marked: [] })
  const lines = [line("inside", "helios-b helios-faint"), line("jump", "helios-a")]
  const last = joints.at(-1)?.[1]
  const note = last
    ? legend([["joint", last.jump, "helios-a", " %"], ["inside", last.inside, "helios-b", " %"]])
    : legend([], "no joint yet")
  note.title = "How much a pixel changes on average: over the joint before a chunk, and between the chunk's own frames."
  node.heliosPanel.replaceChildren(strip, plot(node.heliosPanel, lines), note)
  strip.scrollLeft = strip.scrollWidth
}

// The end of a chunk; a place with a number where its picture is gone from the temp folder.
function shot(folder, name, i) {
  const query = new URLSearchParams({ filename: `${name}.jpg`, subfolder: folder, type: "temp" })
  const picture = el("img", {
    src: api.apiURL(`/view?${query}`), alt: `end of chunk ${i}`, draggable: "false", error: (e) => e.target.remove(),
  })
  return el("div", { class: "helios-shot", title: `chunk ${i}` }, picture, el("span", {}, String(i)))
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
      const mark = { class: marked.includes(c) ? `${look} helios-found` : look, cx: x(c), cy: y(v), r: 2.5 }
      svg.append(el("svg:circle", mark, el("svg:title", {}, `chunk ${c}: ${v.toPrecision(3)}`)))
    }
  }
  return el("div", { class: "helios-plot" }, svg)
}

const label = (x, y, text) => el("svg:text", { x, y }, String(text))

app.registerExtension({
  name: "helios.live",
  setup() {
    api.addEventListener("helios.drift", ({ detail }) => drift(detail))
    api.addEventListener("helios.chunk", ({ detail }) => chunk(detail))
  },
  loadedGraphNode: show,
})
