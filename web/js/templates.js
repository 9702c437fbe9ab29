// The templates in the order in which they are learnt from; the server gives them in the disk's.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { PACK } from "./run.js"

export const ORDER = [
  "one_node_text_to_video", "one_node_image_to_video", "text_to_video", "image_to_video", "video_to_video",
  "long_video", "prompt_schedule", "live", "control_video", "continue_video", "composed_chunk", "unified_latents",
  "pyramid_variance", "latent_robustness",
]

const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length)

app.registerExtension({
  name: "helios-video.templates",
  init() {
    const ask = api.getWorkflowTemplates
    api.getWorkflowTemplates = async function (...given) {
      const found = await ask.apply(this, given)
      found?.[PACK]?.sort((a, b) => place(a) - place(b) || a.localeCompare(b))
      return found
    }
  },
})
