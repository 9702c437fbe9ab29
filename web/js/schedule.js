// The text of HeliosPromptSchedule, read as helios_core/text/prompts.py reads it (tests hold the two together). An edit
// replaces only the characters it is about: what a user typed by hand stays as it is.

import { say } from "./words.js"

const ENTRY = /(?:^|(?<!\\);|\n)\s*([-+]?\d[\d.,]*)[ \t]*(?:\(([^)\n]*)\))?[ \t]*:(?!\d)/dg
const EXAMPLE = '"0: a red circle"'

// {cues: [{chunk, blend, prompt, at}], error}: error is null or says what is wrong; the cues are then what was legible.
export function parse(text) {
  const heads = [...text.matchAll(ENTRY)]
  if (!heads.length || text.slice(0, heads[0].index).trim()) {
    return { cues: [], error: say("The text does not begin with a chunk, as in {example}.", { example: EXAMPLE }) }
  }
  const cues = heads.map((head, i) => cue(text, head, heads[i + 1]?.index ?? text.length))
  return { cues: cues.filter((c) => Number.isInteger(c.chunk)), error: problem(cues) }
}

function cue(text, head, end) {
  const [, chunk, blend] = head
  const from = head.index + head[0].length
  const raw = text.slice(from, end).replace(/(?<!\\);\s*$/, "")
  const start = from + raw.length - raw.trimStart().length
  return {
    chunk: /^\d+$/.test(chunk) ? Number(chunk) : NaN,
    blend: blend === undefined ? 1 : /^\s*\d+\s*$/.test(blend) ? Number(blend) : NaN,
    named: chunk,
    prompt: plain(raw.trim()),
    // places in the text: of the entry with its separator, of the chunk, of what the brackets hold, of the prompt
    at: {
      entry: head.index, chunk: head.indices[1], blend: head.indices[2], prompt: [start, start + raw.trim().length],
    },
    tight: start === from,
  }
}

function problem(cues) {
  for (const c of cues) {
    if (Number.isNaN(c.chunk)) return say("Chunk {named}: wanted a whole number from 0 on.", c)
    if (!(c.blend >= 1)) return say("Chunk {chunk}: the brackets take a whole number of chunks from 1 on.", c)
    if (!c.prompt) return say("The prompt of chunk {chunk} is empty.", c)
  }
  if (cues[0].chunk !== 0) return say("The first prompt begins at chunk {chunk}, not 0.", cues[0])
  if (cues[0].blend !== 1) return say("Nothing comes before chunk 0 to blend from: leave its brackets out.")
  for (const [i, after] of cues.slice(1).entries()) {
    const both = { before: cues[i].chunk, blend: cues[i].blend, after: after.chunk }
    if (after.chunk <= cues[i].chunk) return say("Chunk {after} comes after chunk {before}.", both)
    if (cues[i].chunk + cues[i].blend > after.chunk) {
      return say("Chunk {before} blends over {blend} chunks, but the next prompt begins at {after}.", both)
    }
  }
  return null
}

// The first chunks a cue may begin at, and how many it may blend over: [least, most] each.
export function limits(cues, i) {
  const next = cues[i + 1]?.chunk ?? Infinity
  return {
    chunk: i ? [cues[i - 1].chunk + cues[i - 1].blend, next - cues[i].blend] : [0, 0],
    blend: i ? [1, next - cues[i].chunk] : [1, 1],
  }
}

// Each edit gives the new text, or null where that would not say what was meant: then the old text stays.

export function setChunks(text, cues, chunks) {
  const edits = [...chunks].map(([i, chunk]) => [...cues[i].at.chunk, String(chunk)])
  return checked(splice(text, edits), cues.map((c, i) => ({ ...c, chunk: chunks.get(i) ?? c.chunk })))
}

export function setBlend(text, cues, i, blend) {
  const { chunk, blend: inside } = cues[i].at
  const edit = blend === 1 ? [chunk[1], inside ? inside[1] + 1 : chunk[1], ""]
    : inside ? [...inside, String(blend)] : [chunk[1], chunk[1], ` (${blend})`]
  return checked(splice(text, [edit]), cues.map((c, k) => (k === i ? { ...c, blend } : c)))
}

export function setPrompt(text, cues, i, prompt) {
  const written = escaped(prompt)
  const edit = [...cues[i].at.prompt, (cues[i].tight ? " " : "") + written]
  return checked(splice(text, [edit]), cues.map((c, k) => (k === i ? { ...c, prompt: plain(written) } : c)))
}

export function addCue(text, cues, i, chunk, prompt) {
  const written = escaped(prompt)
  const end = cues[i].at.prompt[1]
  const wanted = [...cues.slice(0, i + 1), { chunk, blend: 1, prompt: plain(written) }, ...cues.slice(i + 1)]
  return checked(splice(text, [[end, end, `\n${chunk}: ${written}`]]), wanted)
}

export function removeCue(text, cues, i) {
  const wanted = cues.filter((_, k) => k !== i)
  if (i) return checked(splice(text, [[cues[i].at.entry, cues[i + 1]?.at.entry ?? text.length, ""]]), wanted)
  const { chunk, blend } = cues[1].at // the second becomes the first: from chunk 0 on, and a cut
  wanted[0] = { ...wanted[0], chunk: 0, blend: 1 }
  return checked(splice(text, [[0, blend ? blend[1] + 1 : chunk[1], "0"]]), wanted)
}

function splice(text, edits) {
  const backwards = [...edits].sort((a, b) => b[0] - a[0]) // so that the places before an edit stay right
  for (const [from, to, put] of backwards) text = text.slice(0, from) + put + text.slice(to)
  return text
}

const plain = (written) => written.replaceAll("\\;", ";")

// A prompt as it is written: ';' as '\;'. A line break that looks like a new entry has no such form: a space it is.
function escaped(prompt) {
  const whole = `x${prompt.trim().replaceAll(";", "\\;")}`
  return whole.replace(ENTRY, (found) => ` ${found.trimStart()}`).slice(1)
}

function checked(text, wanted) {
  const { cues, error } = parse(text)
  const same = cues.length === wanted.length &&
    cues.every((c, i) => ["chunk", "blend", "prompt"].every((key) => c[key] === wanted[i][key]))
  return same && !error ? text : null
}
