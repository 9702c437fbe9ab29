// Notes of the pack's workflows in the language that ComfyUI is set to, as long as a user has changed nothing in them.

import { app } from "../../../scripts/app.js"

const FILE = new URL("../notes.json", import.meta.url)
const NOTES = ["MarkdownNote", "Note"]

let texts = null // [{en, zh, ja}], read once

function nodes(graph) {
  return [...(graph?.nodes ?? []), ...(graph?.definitions?.subgraphs ?? []).flatMap(nodes)]
}

async function translate(workflow) {
  const language = String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en").split("-")[0]
  const notes = nodes(workflow).filter((node) => NOTES.includes(node.type) && node.widgets_values?.length)
  if (!notes.length || (language === "en" && !texts)) return
  texts ??= await fetch(FILE).then((answer) => (answer.ok ? answer.json() : []))
  for (const node of notes) {
    const known = texts.find((text) => Object.values(text).includes(node.widgets_values[0]))
    if (known) node.widgets_values[0] = known[language] ?? known.en
  }
}

app.registerExtension({
  name: "helios-video.notes",
  beforeConfigureGraph: translate,
})
