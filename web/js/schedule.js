// The text of HeliosPromptSchedule, read as helios_core/text/prompts.py reads it (tests hold the two together). An edit
// replaces only the characters it is about: what a user typed by hand stays as it is.

import { BRACKETS, settings, UNCLOSED } from "./settings.js"
import { say } from "./words.js"

const HEAD = "(?:^|(?<!\\\\);|\\n)\\s*([-+]?\\d[\\d.,]*)[ \\t]*(?:\\(([^)\\n]*)\\))?"
const ENTRY = new RegExp(`${HEAD}[ \\t]*(?:${BRACKETS})?[ \\t]*:(?!\\d)`, "dgu")
const EXAMPLE = '"0: a red circle"'
const MOST = 100000 // chunks

// {entries, cues, error}: error is null or says what is wrong; the entries are then what was legible. An entry is
// {chunk, blend, prompt, settings, at}; cues are those with a prompt. least, most: the chunks that the entries beside a
// cue, which have settings alone, leave it.
export function parse(text) {
  const heads = [...text.matchAll(ENTRY)]
  if (!heads.length || text.slice(0, heads[0].index).trim()) {
    return { entries: [], cues: [], error: say("The text does not begin with a chunk, as in {example}.", { example: EXAMPLE }) }
  }
  const all = heads.map((head, i) => cue(text, head, heads[i + 1]?.index ?? text.length))
  const entries = all.filter((c) => Number.isInteger(c.chunk))
  const cues = entries.filter(shown)
  for (const [i, c] of entries.entries()) {
    const [before, next] = [entries[i - 1], entries[i + 1]]
    c.least = before && !shown(before) ? before.chunk + 1 : 0
    c.most = next && !shown(next) ? next.chunk - 1 : Infinity
  }
  const [, unclosed] = UNCLOSED.exec(text) ?? []
  const error = unclosed && say("Chunk {chunk}: its brackets are not closed.", { chunk: unclosed })
  return { entries, cues, error: error ?? problem(all, all.filter(shown)) }
}

// Whether an entry is a span, and not settings alone.
const shown = (c) => Boolean(c.prompt) || !c.bracketed

function cue(text, head, end) {
  const [, chunk, blend, inside] = head
  const from = head.index + head[0].length
  const raw = text.slice(from, end).replace(/(?<!\\);\s*$/, "")
  const start = from + raw.length - raw.trimStart().length
  return {
    chunk: /^\d+$/.test(chunk) ? Number(chunk) : NaN,
    blend: blend === undefined ? 1 : /^\s*\d+\s*$/.test(blend) ? Number(blend) : NaN,
    named: chunk,
    prompt: plain(raw.trim()),
    bracketed: inside !== undefined,
    ...settings(inside ?? ""),
    // places in the text: of the entry with its separator, of the chunk, of what the brackets hold, of the prompt
    at: {
      entry: head.index, end, chunk: head.indices[1], blend: head.indices[2], prompt: [start, start + raw.trim().length],
    },
    tight: start === from,
  }
}

function problem(entries, cues) {
  for (const c of entries) {
    if (Number.isNaN(c.chunk)) return say("Chunk {named}: wanted a whole number from 0 on.", c)
    if (!(c.blend >= 1)) return say("Chunk {chunk}: the brackets take a whole number of chunks from 1 on.", c)
    if (c.bad !== null) return say("Chunk {chunk}: the setting {bad} does not fit.", c)
    if (!c.prompt && (!c.bracketed || c.blend > 1)) return say("The prompt of chunk {chunk} is empty.", c)
    if (c.chunk > MOST) return say("Chunk {chunk}: there are {most} at most.", { ...c, most: MOST })
  }
  if (!cues.length) return say("The prompt of chunk {chunk} is empty.", { chunk: 0 })
  const first = entries[0].chunk ? entries[0] : cues[0]
  if (first.chunk !== 0) return say("The first prompt begins at chunk {chunk}, not 0.", first)
  if (first.settings.end) return say("The video cannot end before chunk 0.")
  if (first.blend !== 1) return say("Nothing comes before chunk 0 to blend from: leave its brackets out.")
  for (const [i, after] of entries.slice(1).entries()) {
    const both = { before: entries[i].chunk, after: after.chunk }
    if (after.chunk <= both.before) return say("Chunk {after} comes after chunk {before}.", both)
  }
  for (const [i, after] of cues.slice(1).entries()) {
    const both = { before: cues[i].chunk, blend: cues[i].blend, after: after.chunk }
    if (cues[i].chunk + cues[i].blend > after.chunk) {
      return say("Chunk {before} blends over {blend} chunks, but the next prompt begins at {after}.", both)
    }
  }
  return null
}

// The first chunks a cue may begin at, and how many it may blend over: [least, most] each.
export function limits(cues, i) {
  const next = cues[i + 1]?.chunk ?? Infinity
  const { least, most } = cues[i]
  return {
    chunk: i ? [Math.max(least, cues[i - 1].chunk + cues[i - 1].blend), Math.min(most, next - cues[i].blend)] : [0, 0],
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

// A prompt from a chunk on; where that has settings already, they stay.
export function addCue(text, cues, i, chunk, prompt) {
  const written = escaped(prompt)
  const { entries } = parse(text)
  const there = entries.find((c) => c.chunk === chunk)
  const last = entries.findLast((c) => c.chunk < chunk).at.prompt[1]
  const edit = there ? [...there.at.prompt, (there.tight ? " " : "") + written] : [last, last, `\n${chunk}: ${written}`]
  const said = { bracketed: Boolean(there), settings: there?.settings ?? {} }
  const added = { chunk, blend: 1, prompt: plain(written), ...said }
  return checked(splice(text, [edit]), [...cues.slice(0, i + 1), added, ...cues.slice(i + 1)])
}

// Without a prompt an entry goes, unless it has settings: they stay. The first prompt is replaced by the second.
export function removeCue(text, cues, i) {
  const wanted = cues.filter((_, k) => k !== (i || 1))
  const edits = gone(cues[i || 1])
  if (!i) {
    wanted[0] = { ...cues[0], prompt: cues[1].prompt }
    edits.push([...cues[0].at.prompt, (cues[0].tight ? " " : "") + text.slice(...cues[1].at.prompt)])
  }
  return checked(splice(text, edits), wanted)
}

function gone({ at, bracketed }) {
  if (!bracketed) return [[at.entry, at.end, ""]]
  return [[...at.prompt, ""], ...(at.blend ? [[at.chunk[1], at.blend[1] + 1, ""]] : [])]
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
    cues.every((c, i) => ["chunk", "blend", "prompt"].every((key) => c[key] === wanted[i][key]) &&
      JSON.stringify(c.settings) === JSON.stringify(wanted[i].settings))
  return same && !error ? text : null
}
