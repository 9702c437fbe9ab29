// What the three panels share: elements, their place in a node, and looks that follow ComfyUI's theme.

import { app } from "../../../scripts/app.js"

const href = new URL("panel.css", import.meta.url).href
document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }))

// An element with attributes (functions are listeners, null leaves one out) and children, which are never read as HTML.
export function el(tag, attributes = {}, ...children) {
  const made = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value)
    else if (value !== null) made.setAttribute(name, value)
  }
  made.append(...children)
  return made
}

// Puts an element under a node's widgets, in canvas and in Vue nodes; neither workflow file nor prompt holds it.
// height: its pixels, or a function that gives them.
export function addPanel(node, name, element, height) {
  const pixels = () => (typeof height === "function" ? height() : height)
  for (const event of ["pointerdown", "mousedown", "dblclick"]) {
    element.addEventListener(event, (e) => e.button || e.stopPropagation()) // in Vue nodes it would drag the node
  }
  element.addEventListener("wheel", (e) => {
    if (!window.LiteGraph?.vueNodesMode) app.canvas.processMouseWheel(e) // what lies over the canvas swallows zooming
  })
  element.heliosHeight = () => { element.style.minHeight = `${pixels()}px` } // where it has changed
  element.heliosHeight()
  const widget = node.addDOMWidget(name, "helios", element, {
    serialize: false,
    getMinHeight: () => pixels() + 20, // the margin around it, above and below
    getMaxHeight: () => pixels() + 20,
    surfaces: { canvas: "shown", vueNode: "shown", panel: "never" },
  })
  widget.serialize = false
  return widget
}

export function fit(node) {
  const [width, height] = node.computeSize()
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
  node.graph?.setDirtyCanvas(true, true)
}

// Calls `then` after a node's own handler, on this one node only.
export function after(object, name, then) {
  const before = object[name]
  object[name] = function (...given) {
    const result = before?.apply(this, given)
    then()
    return result
  }
}
