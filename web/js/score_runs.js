// The runs whose scores the page may direct: what the server tells of them, kept for the tab that they were queued from.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { filmOf, finish, remember } from "./films.js"
import { afterLoading, find, kept, queuedHere, tab, tabOf } from "./run.js"

const TYPE = "HeliosPromptSchedule"
const KIND = "score"
const OVER = ["execution_success", "execution_error", "execution_interrupted"]
const STAGES = new WeakMap() // a node on screen -> its Stage
const DONE = new Set() // runs that are over: what is told of them late is not taken for a run that goes on

export const present = (node, stage) => STAGES.set(node, stage)

// The answer of one of our routes, with its HTTP status as `code`; 0 where there is no server.
export async function ask(path, body) {
  const given = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }
  try {
    const answer = await api.fetchApi(`/helios/${path}`, body && given)
    return { ...(await answer.json()), code: answer.status }
  } catch (error) {
    return { error: String(error), code: 0 }
  }
}

// How a score stands, of an event or an answer. What is told late is not taken: answers and events overtake each other.
export function came(run, node, status) {
  const here = kept(KIND, tabOf(run))
  let state = here.get(String(node))
  if (state?.run !== run) {
    if (DONE.has(run) || !ours(run, node, status)) return
    // seen: the server's text that the widget was given; page: the widget's text that the server was given
    here.set(String(node), state = { run, node: String(node), seen: status.first, page: null, sent: null, over: false })
  }
  const before = state.status
  if (before && (status.edits < before.edits || status.done < before.done || status.begun < before.begun)) return
  state.status = status
  if (tabOf(run) === tab()) show(state)
}

// A run that was queued from elsewhere is taken only where the text on screen is its own.
function ours(run, node, { first, text }) {
  const stage = STAGES.get(find(node, TYPE))
  return queuedHere(run) || (stage && [first, text].includes(stage.timeline.text))
}

export function show(state) {
  STAGES.get(find(state.node, TYPE))?.take(state)
}

function showAll() {
  for (const state of kept(KIND).values()) show(state)
}

// Asks how a run's scores stand; of every run in work, where none is named: after a reload, or a dropped connection.
async function askAgain(run) {
  const { runs, code } = await ask("runs")
  if (code !== 200) return
  for (const found of runs.filter((one) => !run || one.run === run)) {
    for (const node of found.nodes) {
      const status = await ask(`runs/${found.run}/${node}`)
      if (status.code === 200) came(found.run, node, status)
    }
  }
  if (run) return
  for (const state of kept(KIND).values()) if (!runs.some((one) => one.run === state.run)) end(state)
  const { films } = await ask("films")
  for (const film of films ?? []) remember(film)
  const fits = ({ schedule, text }) => STAGES.get(find(schedule, TYPE))?.timeline.text === text
  for (const film of (films ?? []).reverse().sort((a, b) => fits(b) - fits(a))) adopt(film)
  showAll()
}

// Of a run that was over before the page was loaded, its film says how it stands.
function adopt(film) {
  const { run, schedule: node, text } = film
  const here = kept(KIND, tabOf(run))
  if (film.over && node && text !== null && !here.has(node) && queuedHere(run)) here.set(node, past(film, node, text))
}

// The state of a run that is over.
function past({ run, first, chunks }, node, text) {
  DONE.add(run)
  const done = first + chunks
  const status = { text, first: text, edits: 0, begun: done, done, total: done, paused: false, ended: true, chunks: [] }
  return { run, node, seen: text, page: null, sent: null, over: true, status }
}

// The timeline turns to another take, whose score its text becomes.
export function turnTo(stage, { run, text }) {
  const film = filmOf(run)
  if (!film) return stage.timeline.given(text)
  const state = past(film, film.schedule, text)
  kept(KIND).set(film.schedule, { ...state, seen: null })
  show(kept(KIND).get(film.schedule))
}

// A film has another chunk.
function grew(film) {
  remember(film)
  const state = kept(KIND, tabOf(film.run)).get(film.schedule)
  if (state?.run === film.run && tabOf(film.run) === tab()) STAGES.get(find(state.node, TYPE))?.timeline.draw()
}

export function end(state) {
  state.over = true
  DONE.add(state.run)
  finish(state.run)
  show(state)
}

app.registerExtension({
  name: "helios-video.score",
  setup() {
    api.addEventListener("helios-video.score", ({ detail: { prompt, node, ...status } }) => came(prompt, node, status))
    api.addEventListener("helios-video.film", ({ detail }) => grew(detail))
    api.addEventListener("execution_start", ({ detail }) => askAgain(detail.prompt_id))
    for (const name of OVER) {
      api.addEventListener(name, ({ detail }) => {
        DONE.add(detail.prompt_id)
        const states = [...kept(KIND, tabOf(detail.prompt_id)).values()]
        for (const state of states) if (state.run === detail.prompt_id) end(state)
      })
    }
    api.addEventListener("reconnected", () => askAgain())
    let asked = false
    afterLoading(() => {
      showAll()
      if (!asked) askAgain() // the page may have been loaded anew
      asked = true
    })
  },
})
