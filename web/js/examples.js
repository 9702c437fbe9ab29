// The clip that the template video_to_video begins with: put into the input folder when a workflow is opened that names
// it and it is not there, as the frontend does for the templates of its own.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

const CLIP = "helios_example.mp4"
const SOURCE = new URL(`../examples/${CLIP}`, import.meta.url)

// The list of files that new Load Video nodes offer; changed in place.
function offered() {
  const spec = window.LiteGraph?.registered_node_types?.LoadVideo?.nodeData?.input?.required?.file
  return Array.isArray(spec?.[0]) ? spec[0] : spec?.[1]?.options
}

async function bring() {
  const clip = await fetch(SOURCE)
  if (!clip.ok) return
  const body = new FormData()
  body.append("image", new File([await clip.blob()], CLIP, { type: "video/mp4" }))
  body.append("type", "input")
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  const files = offered()
  if (answer.ok && files && !files.includes(CLIP)) files.push(CLIP)
}

app.registerExtension({
  name: "helios-video.examples",
  async beforeConfigureGraph(workflow) {
    const named = workflow?.nodes?.some((node) => node.type === "LoadVideo" && node.widgets_values?.[0] === CLIP)
    if (named && offered()?.includes(CLIP) === false) await bring()
  },
})
