// Which neurons are judged, in which order, and which run is on which side: all by the seed.

import { get, neuronResource } from "./api.js";

const TRIES = 20; // neurons looked at for each that is judged: one may lack an explanation

// 32 bits of FNV-1a over the UTF-16 units of a text.
function hash(text) {
  let value = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) value = Math.imul(value ^ text.charCodeAt(at), 0x01000193) >>> 0;
  // the low bits of FNV alone follow the last character
  value = Math.imul(value ^ (value >>> 16), 0x45d9f3b);
  return (value ^ (value >>> 16)) >>> 0;
}

// Whether the second run is shown on the left.
export function swapped({ seed, site, neuron }) {
  return (hash(`${seed} side ${site} ${neuron}`) & 1) === 1;
}

// The places 0 … rows − 1 in an order that the seed alone decides.
export function shuffled(rows, seed, site) {
  const keys = Uint32Array.from({ length: rows }, (_, place) => hash(`${seed} order ${site} ${place}`));
  return Uint32Array.from(keys.keys()).sort((a, b) => keys[a] - keys[b] || a - b);
}

// The neurons to judge, one after the other: those that both runs explain, in different words, and
// of which there are held-out records.
export class Order {
  #found = [];
  #looked = 0;
  #waiting = Promise.resolve();

  constructor({ site, columns, a, b, seed, number }) {
    Object.assign(this, { site, columns, a, b, number });
    this.places = shuffled(columns.rows, seed, site);
    this.same = 0; // both runs say the same
  }

  // The neuron at `place`, or null where there are no more.
  at(place) {
    const next = this.#waiting.then(() => this.#until(place));
    this.#waiting = next.catch(() => {});
    return next;
  }

  async #until(place) {
    while (this.#found.length <= place && !this.#ended()) {
      const row = this.places[this.#looked++];
      const neuron = this.columns.neurons ? this.columns.neurons[row] : row;
      const about = await get(neuronResource(this.site, neuron));
      if (this.#fits(about)) this.#found.push(about);
    }
    return this.#found[place] ?? null;
  }

  #ended() {
    return this.#found.length >= this.number || this.#looked >= Math.min(this.places.length, TRIES * this.number);
  }

  #fits(about) {
    const [a, b] = [this.a, this.b].map((run) => about.explanations.find((one) => one.run === run)?.text ?? null);
    if (a === null || b === null || !held(about).length) return false;
    if (a === b) this.same++;
    return a !== b;
  }
}

// The records that neither explainer was shown.
export function held({ records }) {
  return records.filter(({ split, kind }) => (split === "valid" || split === "test") && kind !== "quantile");
}
