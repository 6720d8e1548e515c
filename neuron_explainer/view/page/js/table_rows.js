// The texts of rows, fetched in blocks as they come into view.

import { get, resource } from "./api.js";

const PAUSE = 60; // milliseconds without a change of what is in view before it is fetched

export class Rows {
  #known = new Map();
  #asked = new Set();
  #timer = 0;

  // `arrived(block)` is called whenever rows came, or were found to be unreadable.
  constructor(site, told, arrived, signal) {
    Object.assign(this, { site, told, arrived, signal });
    signal.addEventListener("abort", () => clearTimeout(this.#timer));
  }

  // A row's texts; {error} where its file cannot be read; null while it is on its way.
  at(place) {
    const block = this.#known.get(this.#block(place));
    if (!block) return null;
    return block.error ? { error: block.error } : (block.rows[place % this.told.block] ?? { error: "this row is missing" });
  }

  #block(place) {
    return Math.floor(place / this.told.block);
  }

  // Say what is in view now: of earlier wishes, those not yet sent are dropped.
  want(places) {
    clearTimeout(this.#timer);
    const missing = new Set(places.map((place) => this.#block(place)).filter((block) => !this.#known.has(block) && !this.#asked.has(block)));
    if (missing.size) this.#timer = setTimeout(() => missing.forEach((block) => this.#fetch(block)), PAUSE);
  }

  async #fetch(block) {
    this.#asked.add(block);
    const path = resource(this.site, "rows", Math.floor(block / this.told.blocks_per_folder), block);
    try {
      this.#known.set(block, await get(path, { signal: this.signal }));
    } catch (error) {
      if (this.signal.aborted) return;
      this.#known.set(block, { error: error.message });
    }
    this.#asked.delete(block);
    this.arrived(block);
  }
}
