// The clips that the templates video_to_video and control_video begin with: put into the input folder when a workflow
// is opened that names one and it is not there, as the frontend does for the templates of its own.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

const CLIPS = ["helios_example.mp4", "helios_control.mp4"]

// The list of files that new Load Video nodes offer; changed in place.
function offered() {
  const spec = window.LiteGraph?.registered_node_types?.LoadVideo?.nodeData?.input?.required?.file
  return Array.isArray(spec?.[0]) ? spec[0] : spec?.[1]?.options
}

async function bring(name) {
  const clip = await fetch(new URL(`../examples/${name}`, import.meta.url))
  if (!clip.ok) return
  const body = new FormData()
  body.append("image", new File([await clip.blob()], name, { type: "video/mp4" }))
  body.append("type", "input")
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  const files = offered()
  if (answer.ok && files && !files.includes(name)) files.push(name)
}

app.registerExtension({
  name: "helios-video.examples",
  async beforeConfigureGraph(workflow) {
    const named = (clip) => workflow?.nodes?.some((n) => n.type === "LoadVideo" && n.widgets_values?.[0] === clip)
    for (const clip of CLIPS.filter(named)) if (offered()?.includes(clip) === false) await bring(clip)
  },
})
