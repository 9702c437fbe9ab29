// A picture that a chunk is drawn toward: dropped on its cell, or chosen for where a span begins. It is uploaded as Load
// Image does it, and written into the score.

import { api } from "../../../scripts/api.js"
import { el } from "./panel.js"
import { ask } from "./score_runs.js"
import { say } from "./words.js"

const STRENGTH = 0.5 // of a picture that the chunk had none before
const held = (event) => [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file")

// The name in ComfyUI's input folder. Throws what the server says where it takes none.
async function upload(file) {
  const body = new FormData()
  body.append("image", file)
  body.append("type", "input")
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`)
  const { name, subfolder } = await answer.json()
  return subfolder ? `${subfolder}/${name}` : name
}

// Draws chunk number `chunk` of a timeline toward a picture; what is refused is said under it.
export async function toward(timeline, chunk, file) {
  timeline.sync()
  if (timeline.error || !file) return
  const before = timeline.entries.find((entry) => entry.chunk === chunk)?.settings.image
  try {
    const image = [await upload(file), before?.[1] ?? STRENGTH]
    const answer = await ask("score/write", { text: timeline.text, chunk, image })
    if (answer.code !== 200) throw new Error(answer.error)
    timeline.stage.fault = null
    timeline.edit(answer.text)
  } catch (error) {
    timeline.stage.fault = error.message
    timeline.draw()
  }
}

export function acceptDrops(timeline) {
  const { track } = timeline
  const mark = el("div", { class: "helios-aim" })
  const aim = (chunk) => {
    mark.style.cssText = `left: ${(chunk / timeline.cells) * 100}%; width: ${100 / timeline.cells}%`
    track.append(mark)
  }
  track.addEventListener("dragover", (event) => {
    if (!held(event) || timeline.error) return
    event.preventDefault()
    event.stopPropagation() // the frontend would open the file as a workflow
    aim(Math.floor(timeline.at(event)))
  })
  track.addEventListener("dragleave", () => mark.remove())
  track.addEventListener("drop", (event) => {
    if (!held(event) || timeline.error) return
    event.preventDefault()
    event.stopPropagation()
    mark.remove()
    toward(timeline, Math.floor(timeline.at(event)), [...event.dataTransfer.files].find((file) => file.type.startsWith("image/")))
  })
}

export function pictureButton(timeline) {
  const chunk = () => timeline.cues[timeline.chosen]?.chunk
  const file = el("input", { type: "file", accept: "image/*", hidden: "", change: () => {
    toward(timeline, chunk(), file.files[0])
    file.value = "" // so that the same may be chosen again
  } })
  const title = say("A picture that the chunk where this prompt begins is drawn toward; or drop one on any chunk")
  return el("button", { type: "button", title, "aria-label": title, click: () => timeline.error || file.click() }, "▣", file)
}
