// The sampler's preview on the subgraph nodes that it stands in. Frontends show it there in Vue nodes, and 1.27 on the
// canvas too; 1.49 and 1.58 load the picture for them and draw it nowhere on the canvas.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { addPanel, el, fit } from "./panel.js"
import { find, tab, tabOf } from "./run.js"

const HEIGHT = 240
const OWN = "$$canvas-image-preview" // the frontend's widget for a node's pictures
const PATIENCE = 500 // milliseconds in which a frontend that draws the picture has made that widget
const PICTURES = new WeakMap() // a subgraph node -> the <img> in its panel

// The subgraph nodes that a node stands in, of the ids of all levels.
function around(id) {
  const found = []
  let graph = app.rootGraph ?? app.graph
  for (const part of String(id).split(":").slice(0, -1)) {
    const node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part))
    if (node) found.push(node)
    graph = node?.subgraph
  }
  return found
}

function show(node, blob) {
  if (!PICTURES.has(node)) {
    if (node.widgets?.some((widget) => widget.name === OWN)) return
    const picture = el("img", { class: "helios-preview", alt: "", draggable: "false" })
    addPanel(node, "preview", picture, HEIGHT)
    PICTURES.set(node, picture)
    fit(node)
  }
  const picture = PICTURES.get(node)
  URL.revokeObjectURL(picture.src)
  picture.src = URL.createObjectURL(blob)
}

function came({ blob, displayNodeId: id, jobId, promptId }) {
  if (window.LiteGraph?.vueNodesMode || tabOf(jobId ?? promptId) !== tab() || !find(id, "DMDPyramidSample")) return
  app.canvas.setDirty(true, true) // the frontend looks for pictures as it draws
  for (const node of around(id)) setTimeout(() => show(node, blob), PICTURES.has(node) ? 0 : PATIENCE)
}

app.registerExtension({
  name: "helios-video.outside",
  setup() {
    api.addEventListener("b_preview_with_metadata", ({ detail }) => came(detail))
  },
})
