// Says where a video model is to be had that a workflow names and that is not here. The frontend itself does so for
// single files, such as a text encoder or a VAE; the published video models are folders.

import { app } from "../../../scripts/app.js"
import { el } from "./panel.js"
import { afterLoading, tab } from "./run.js"
import { say } from "./words.js"

const PUBLISHED = ["Helios-Distilled", "Helios-Mid", "Helios-Base"]
const SITE = "https://huggingface.co/BestWishYsh"
const FILE = /\.(safetensors|sft|ckpt|pt|pth|bin|gguf)$/i
const TOLD = new WeakMap() // a tab's workflow -> the names it was told of

// The widgets that name a video model, of nodes in use: the loader's own, or what a subgraph shows of it outside.
function named(graph) {
  const used = (graph?._nodes ?? graph?.nodes ?? []).filter((node) => node.mode !== 2 && node.mode !== 4)
  return used.flatMap((node) => {
    const own = node.comfyClass === "HeliosLoader" ? [node.widgets?.find((w) => w.name === "model")] : []
    const inner = node.subgraph ? named(node.subgraph) : own
    const shown = inner.length && node.subgraph ? node.widgets?.find((w) => w.name === "model") : null
    return shown ? [shown] : inner
  })
}

// Folders that the loaders in use name and the server does not offer.
function absent() {
  const widgets = named(app.rootGraph ?? app.graph)
  const names = widgets.filter((w) => w && !(w.options?.values ?? []).includes(w.value)).map((w) => String(w.value))
  return [...new Set(names)].filter((name) => name && !FILE.test(name))
}

function tell() {
  const told = TOLD.get(tab()) ?? new Set()
  const names = absent().filter((name) => !told.has(name))
  TOLD.set(tab(), new Set([...told, ...names]))
  if (!names.length) return
  const rows = names.map((name) => {
    const known = PUBLISHED.find((one) => name.toLowerCase().includes(one.toLowerCase()))
    const link = known && el("a", { href: `${SITE}/${known}`, target: "_blank", rel: "noopener" }, `${SITE}/${known}`)
    const place = { place: `models/helios/${name}` }
    const what = known ? say("Download the whole folder into {place}, then press R.", place)
      : say("Put its folder into {place}, then press R.", place)
    return el("li", {}, el("b", {}, name), ...(link ? [" ", link] : []), el("br"), what)
  })
  app.ui.dialog.show(
    el("div", { class: "helios-absent" }, el("h3", {}, say("This workflow names models that are not here")),
      el("ul", {}, ...rows), el("p", {}, say("helios-tiny, which ships with the pack, runs without any download."))),
  )
}

app.registerExtension({
  name: "helios-video.absent",
  setup() {
    afterLoading(tell)
  },
})
