// What a score says of a chunk beside its prompt, in square brackets, read as helios_core/text/directions.py reads it
// (tests hold the two together): 4 (2) [seed 7, cfg 3, drift 0.5, image "a cat.png" 0.4, cut]: a blue square

import { say } from "./words.js"

const HELD = ["seed", "cfg", "drift"] // what holds until it is changed
const WORDS = [...HELD, "image", "cut", "end"]
const BEGINS = `(?=[ \\t]*(?:(?:${WORDS.join("|")})(?![\\p{L}\\p{N}_])|[A-Za-z]+[ \\t]+[-+]?\\.?\\d))`
export const BRACKETS = `\\[(${BEGINS}(?:"[^"\\n]*"|[^\\]"\\n])*)\\]`
// As an entry begins, but the line ends before its brackets do.
export const UNCLOSED = new RegExp(
  `(?:^|(?<!\\\\);|\\n)\\s*([0-9]+)[ \\t]*(?:\\([^)\\n]*\\))?[ \\t]*\\[${BEGINS}[^\\]\\n]*(?=\\n|$)`, "u")
const NUMBER = "\\d+(?:\\.\\d+)?|\\.\\d+"
const ITEM = /(?:"[^"\n]*"|[^,"])+|(?<=,)(?=,|$)/g
const PICTURE = new RegExp(`^(?:"([^"\\n]*)"|(.*?))[ \\t]+(${NUMBER})$`)
const MAX_SEED = 2n ** 64n - 1n
const MOST = { cfg: 100, drift: 1 }

// {settings: {word: value}, bad}: bad is null, or the setting that does not fit.
export function settings(inside) {
  const found = {}
  for (const [part] of inside.matchAll(ITEM)) {
    const bare = part.trim()
    const word = bare.split(bare.includes(" ") ? " " : "\t")[0]
    const read = WORDS.includes(word) && !(word in found) ? value(word, bare.slice(word.length).trim()) : null
    if (read === null) return { settings: found, bad: bare || "," }
    found[word] = read
  }
  return { settings: found, bad: null }
}

// Null for what is no value of that word. A seed stays text: it may be larger than a number here holds exactly.
function value(word, text) {
  if (word === "cut" || word === "end") return text ? null : true
  if (word === "seed") return /^[0-9]{1,20}$/.test(text) && BigInt(text) <= MAX_SEED ? String(BigInt(text)) : null
  if (word !== "image") return new RegExp(`^(?:${NUMBER})$`).test(text) && Number(text) <= MOST[word] ? Number(text) : null
  const [, quoted, plain, far] = PICTURE.exec(text) ?? []
  const name = quoted ?? plain
  return name && !name.includes('"') && Number(far) > 0 && Number(far) <= 1 ? [name, Number(far)] : null
}

// What chunk number `chunk` is made by, of all entries of a score, as text that may be compared.
export function madeBy(entries, chunk) {
  const shown = entries.filter((entry) => entry.prompt && entry.chunk <= chunk)
  const [before, last] = [shown.at(-2), shown.at(-1)]
  const share = Math.min(1, (chunk - last.chunk + 1) / last.blend)
  const held = {}
  for (const { chunk: at, settings: said } of entries) {
    for (const word of WORDS) {
      if (at <= chunk && word in said && word !== "end" && (at === chunk || HELD.includes(word))) held[word] = said[word]
    }
  }
  const sorted = WORDS.filter((word) => word in held).map((word) => [word, held[word]])
  return JSON.stringify([share < 1 ? before.prompt : null, last.prompt, share, sorted])
}

// The settings of an entry as marks: [short, in words] each.
export function marks(said) {
  const words = {
    seed: (n) => [`#${n}`, say("take: seed {n}", { n })],
    cfg: (n) => [`cfg ${n}`, say("guidance {n}", { n })],
    drift: (n) => [`drift ${n}`, say("Anti-Drift {n}", { n })],
    image: ([name, n]) => [`▣ ${n}`, say("drawn toward {name} by {n}", { name, n })],
    cut: () => ["✂", say("a new scene")],
    end: () => ["■", say("the video ends before it")],
  }
  return WORDS.filter((word) => word in said).map((word) => words[word](said[word]))
}
