// The films of runs: what is made so far of each video, as the server tells it. A film's chunks have pictures, and parts
// to be played.

import { api } from "../../../scripts/api.js"
import { el } from "./panel.js"
import { say } from "./words.js"

const FILMS = new Map() // "run/number" -> what was told last
const MOST = 200

export const address = ({ run, film }, what) => api.apiURL(`/helios/films/${encodeURIComponent(run)}/${film}/${what}`)

// Keeps what the server told of a film, unless more of it is known.
export function remember(film) {
  const key = `${film.run}/${film.film}`
  const before = FILMS.get(key)
  if (before && before.chunks > film.chunks) return
  FILMS.set(key, film)
  if (FILMS.size > MOST) FILMS.delete(FILMS.keys().next().value)
}

// A run is over: nothing more comes of its films.
export function finish(run) {
  for (const [key, film] of FILMS) if (film.run === run) FILMS.set(key, { ...film, over: true })
}

// The film that a run makes by the score of a schedule node: the longest, where there are several; null for none.
export function filmOf(run, node = null) {
  const found = [...FILMS.values()].filter((film) => film.run === run && film.schedule && [null, film.schedule].includes(node))
  return found.reduce((best, film) => (best && best.chunks >= film.chunks ? best : film), null)
}

// The pictures of a film's chunks over cells, the same elements as before. made: from where on they are another text's.
export function pictures(film, cells, made, shots) {
  return Array.from({ length: film.chunks }, (_, i) => {
    const [src, chunk] = [address(film, `${i}.jpg`), film.first + i]
    if (!shots.has(src)) {
      const gone = (e) => { e.target.style.visibility = "hidden" }
      shots.set(src, el("img", { src, alt: say("end of chunk {i}", { i: chunk }), draggable: "false", error: gone }))
    }
    const shot = shots.get(src)
    shot.className = chunk < made ? "helios-picture" : "helios-picture helios-dim"
    shot.style.left = `${(chunk / cells) * 100}%`
    shot.style.width = `${100 / cells}%`
    return shot
  })
}
