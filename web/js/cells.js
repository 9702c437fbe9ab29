// What the timeline shows of chunks rather than of prompts: their numbers, and the settings that the score has for them.

import { el } from "./panel.js"
import { marks } from "./settings.js"
import { say } from "./words.js"

export function ruler(cells) {
  const step = 10 ** Math.max(0, Math.ceil(Math.log10(cells / 25)))
  return Array.from({ length: Math.ceil(cells / step) }, (_, i) =>
    el("div", { class: "helios-cell", style: `left: ${(i * step / cells) * 100}%` }, String(i * step)))
}

// The settings of each entry, on its cell.
export function settingsMarks(entries, cells) {
  return entries.filter((entry) => entry.bracketed).map((entry) => {
    const shorts = marks(entry.settings).map(([short]) => el("span", {}, short))
    return el("div", { class: "helios-marks", style: `left: ${(entry.chunk / cells) * 100}%` }, ...shorts)
  })
}

// What the settings from cue i on say, up to the next cue, in words.
export function settingsSaid(entries, cues, i) {
  const inside = ({ chunk }) => chunk >= cues[i].chunk && chunk < (cues[i + 1]?.chunk ?? Infinity)
  return entries.filter((entry) => entry.bracketed && inside(entry)).map((entry) =>
    `${say("chunk {i}", { i: entry.chunk })}: ${marks(entry.settings).map(([, words]) => words).join(", ")}`)
}
