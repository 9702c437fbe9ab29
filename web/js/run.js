// Which run belongs to which tab, so that what a run leaves is shown in the workflow that was queued and in no copy of it.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

// The folder of this pack in custom_nodes, which is its name in addresses.
export const PACK = decodeURIComponent(new URL(import.meta.url).pathname.split("/extensions/")[1].split("/")[0])

const KEPT = new WeakMap() // a tab's workflow -> what came for its nodes, by the ids that the server knows
const TABS = new Map() // a queued prompt's id -> the tab it was queued from
const NONE = {} // stands for the tab where the frontend names none
const MOST = 200 // prompts remembered

export const tab = () => app.extensionManager?.workflow?.activeWorkflow ?? NONE

// What is kept for a tab's nodes, by kind: a Map from the server's id of a node to what came for it.
export function kept(kind, of = tab()) {
  if (!KEPT.has(of)) KEPT.set(of, {})
  return (KEPT.get(of)[kind] ??= new Map())
}

// The tab that a prompt was queued from; the one on screen where that is not known, as after the page was loaded anew.
export const tabOf = (prompt) => TABS.get(prompt) ?? tab()

// Whether this page queued a prompt: that it did outlives a reload.
export const queuedHere = (prompt) => TABS.has(prompt) || sessionStorage.getItem(`helios ${prompt}`) === (tab().path ?? "")

// A node of the graph on screen by the id that the server knows, "4" or, inside subgraphs, "7:4".
export function find(id, type) {
  let graph = app.rootGraph ?? app.graph
  let node = null
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part))
    graph = node?.subgraph
  }
  return node?.comfyClass === type ? node : null
}

// Calls `then` whenever a workflow has been loaded, by a user, by undo or by a change of tabs: only after the whole of
// it is known which tab is on screen, and no hook of an extension comes that late.
export function afterLoading(then) {
  const load = app.loadGraphData
  app.loadGraphData = async function (...given) {
    const result = await load.apply(this, given)
    then()
    return result
  }
}

export function watchQueue() {
  const queue = api.queuePrompt
  api.queuePrompt = async function (...given) {
    const from = tab()
    const answer = await queue.apply(this, given)
    if (answer?.prompt_id) {
      TABS.set(answer.prompt_id, from)
      sessionStorage.setItem(`helios ${answer.prompt_id}`, from.path ?? "")
    }
    if (TABS.size > MOST) TABS.delete(TABS.keys().next().value)
    return answer
  }
}
