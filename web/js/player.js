// A film that is played while it grows: Media Source is given the head, and of the parts those that come next.

import { address } from "./films.js"
import { el } from "./panel.js"
import { say } from "./words.js"

const AHEAD = 60 // seconds that are fetched before they are played
const BEHIND = 10 // seconds that stay, where the browser runs out of room
const NEAR = 0.02 // seconds by which the browser's times may differ from ours
const AGAIN = 1000 // milliseconds until what did not come is asked for again

export class Player {
  constructor(film) {
    this.video = el("video", { playsinline: "", preload: "auto", class: "helios-video" })
    this.video.muted = true // else no browser plays it unasked
    this.source = new MediaSource()
    this.video.src = URL.createObjectURL(this.source)
    this.source.addEventListener("sourceopen", () => this.open(), { once: true })
    for (const event of ["timeupdate", "seeking"]) this.video.addEventListener(event, () => this.pump())
    this.grow(film)
  }

  // The film has another chunk, or is over.
  grow(film) {
    this.film = film
    let frames = 0
    this.ends = film.frames.map((count) => (frames += count) / film.fps)
    this.pump()
  }

  // Seconds that are made.
  get made() {
    return this.ends.at(-1) ?? 0
  }

  async open() {
    const head = await this.get("head.mp4")
    if (!head || this.source.readyState !== "open") return
    const type = `video/mp4; codecs="${codec(new Uint8Array(head))}"`
    if (!MediaSource.isTypeSupported(type)) return this.video.replaceWith(say("This browser plays no H.264."))
    this.buffer = this.source.addSourceBuffer(type)
    await this.append(head)
    this.pump()
  }

  async pump() {
    if (this.busy || !this.buffer) return
    this.busy = true
    for (let next = this.next(); next !== null && !this.closed; next = this.next()) {
      const part = await this.get(`${next}.m4s`)
      if (!part || !(await this.append(part))) break
    }
    this.busy = false
    const all = this.film.over && this.holds(this.ends.length - 1)
    if (all && !this.closed && this.source.readyState === "open") this.source.endOfStream()
  }

  // The first chunk from what is shown on that is not there yet; null where there is none to fetch now.
  next() {
    const now = this.video.currentTime
    const from = this.ends.findIndex((end) => end > now + NEAR)
    if (from < 0) return null
    const found = this.ends.findIndex((end, i) => i >= from && !this.holds(i))
    return found < 0 || this.start(found) > now + AHEAD ? null : found
  }

  start(i) {
    return this.ends[i - 1] ?? 0
  }

  holds(i) {
    const { buffered } = this.buffer
    return Array.from(buffered, (_, k) => k).some((k) =>
      buffered.start(k) <= this.start(i) + NEAR && buffered.end(k) >= this.ends[i] - NEAR)
  }

  async get(what) {
    try {
      const answer = await fetch(address(this.film, what))
      if (answer.ok) return await answer.arrayBuffer()
      if (answer.status === 404) return null
    } catch { /* the connection is lost */ }
    if (!this.closed) setTimeout(() => (this.buffer ? this.pump() : this.open()), AGAIN)
    return null
  }

  // Whether the browser took it.
  async append(data) {
    for (const more of [true, false]) {
      try {
        return await this.wait(() => this.buffer.appendBuffer(data))
      } catch (error) {
        const until = this.video.currentTime - BEHIND
        if (error.name !== "QuotaExceededError" || !more || until <= 0) return false
        await this.wait(() => this.buffer.remove(0, until))
      }
    }
    return false
  }

  wait(begin) {
    return new Promise((resolve, reject) => {
      if (this.closed) return resolve(false)
      this.buffer.addEventListener("updateend", () => resolve(!this.video.error), { once: true })
      try {
        begin()
      } catch (error) {
        reject(error)
      }
    })
  }

  close() {
    this.closed = true
    this.video.pause()
    URL.revokeObjectURL(this.video.src)
    this.video.removeAttribute("src")
    this.video.load()
    this.video.remove()
  }
}

// The encoding as Media Source calls it, of an MP4's head.
function codec(head) {
  const place = head.findIndex((_, i) => [97, 118, 99, 67].every((byte, k) => head[i + k] === byte)) // "avcC"
  return `avc1.${[...head.slice(place + 5, place + 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`
}
