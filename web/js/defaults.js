// What a new node of ours begins with, beyond what its class can say.

import { app } from "../../../scripts/app.js"
import { PACK } from "./run.js"

// Where the published parts lie that are single files: the frontend offers them where a workflow names one that is not
// there. A workflow takes them along.
const REPACKAGED = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
const PARTS = {
  text_encoders: ["umt5_xxl_fp8_e4m3fn_scaled.safetensors", "umt5_xxl_fp16.safetensors"],
  vae: ["wan_2.1_vae.safetensors"],
}
const OURS = new Set() // the classes of this pack
const MODELS = Object.entries(PARTS).flatMap(([directory, names]) =>
  names.map((name) => ({ name, url: `${REPACKAGED}/${directory}/${name}`, directory })))

app.registerExtension({
  name: "helios-video.defaults",
  beforeRegisterNodeDef(_, { name, python_module: module }) {
    if (module === `custom_nodes.${PACK}`) OURS.add(name)
  },
  nodeCreated(node) {
    if (!OURS.has(node.comfyClass)) return
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed" // no class can say so in every frontend
    }
    if (node.comfyClass === "HeliosLoader") node.properties.models ??= MODELS
    const prefix = node.comfyClass === "HeliosSaveHistory" && node.widgets?.find((w) => w.name === "filename_prefix")
    const replace = window.comfyAPI?.utils?.applyTextReplacements // %date:...% and %Node.widget%, as Save Video has them
    if (prefix && replace) prefix.serializeValue = () => replace(app, String(prefix.value))
  },
})
