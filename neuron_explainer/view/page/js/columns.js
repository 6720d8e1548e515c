// The numbers of a site's neurons, a column at a time, and which of its rows pass filters in which order.

import { get, resource } from "./api.js";

// One site's columns. `rows` is how many neurons there are; a row's place is its position in the files.
export class Columns {
  #values = new Map();
  #sorted = null;

  static async of(site, signal) {
    return new Columns(site, await get(resource(site, "columns"), { signal }));
  }

  constructor(site, told) {
    Object.assign(this, { site, told, rows: told.rows, known: told.columns });
    this.broken = new Map(); // columns that cannot be read, and why
  }

  find(key) {
    return this.known.find((column) => column.key === key) ?? null;
  }

  neuron(place) {
    return this.told.neurons ? this.told.neurons[place] : place;
  }

  // The place of a neuron, or −1.
  place(neuron) {
    if (this.told.neurons) return this.told.neurons.indexOf(neuron);
    return neuron >= 0 && neuron < this.rows ? neuron : -1;
  }

  // The values of a column that was loaded: NaN where undefined. "neuron" is the index itself.
  values(key) {
    return this.#values.get(key) ?? null;
  }

  async load(keys, signal) {
    await Promise.all(
      keys.filter((key) => !this.#values.has(key)).map(async (key) => this.#values.set(key, await this.#read(key, signal))),
    );
  }

  async #read(key, signal) {
    if (key === "neuron") return Float64Array.from({ length: this.rows }, (_, place) => this.neuron(place));
    try {
      const { values } = await get(resource(this.site, "columns", key), { signal });
      return Float64Array.from(values, (value) => value ?? NaN);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.broken.set(key, error);
      return new Float64Array(this.rows).fill(NaN);
    }
  }

  // All places, sorted by a column; the last order is remembered, as filters change more often than it does.
  order({ key, descending }) {
    const values = this.values(key);
    if (this.#sorted?.values !== values || this.#sorted.descending !== descending) {
      const places = Uint32Array.from({ length: this.rows }, (_, place) => place);
      this.#sorted = { values, descending, places: sorted(places, values, descending) };
    }
    return this.#sorted.places;
  }

  // A column computed from others, under a key of its own.
  add(key, values) {
    this.#values.set(key, values);
  }
}

// The places of rows that pass, in the order of `places`: `filters` is a Map of column to [low, high], null where open; `among` is
// null or a Set of places. An undefined value passes no filter.
export function passing(columns, places, filters, among = null) {
  const tests = [...filters].map(([key, [low, high]]) => [columns.values(key), low ?? -Infinity, high ?? Infinity]);
  if (!tests.length && !among) return places;
  return places.filter((place) => (!among || among.has(place)) && tests.every(([values, low, high]) => values[place] >= low && values[place] <= high));
}

// Sorted in place by a column; undefined values come last in either direction, equals as in the files.
export function sorted(places, values, descending) {
  const sign = descending ? -1 : 1;
  return places.sort((one, other) => {
    const [a, b] = [values[one], values[other]];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b) || one - other;
    return sign * (a - b) || one - other;
  });
}

// "density:0.1,;maximum:,3" as a Map, and back. What is not understood is left out.
export function readFilters(text) {
  const found = new Map();
  for (const part of (text ?? "").split(";")) {
    const [, key, low, high] = /^(.+):([^,:]*),([^,:]*)$/.exec(part) ?? [];
    const range = key === undefined ? [null, null] : [bound(low), bound(high)];
    if (range.some((end) => end !== null)) found.set(key, range);
  }
  return found;
}

function bound(text) {
  const value = Number(text);
  return text.trim() === "" || !Number.isFinite(value) ? null : value;
}

export function writeFilters(filters) {
  return [...filters].map(([key, [low, high]]) => `${key}:${low ?? ""},${high ?? ""}`).join(";");
}

// "column" and "-column" for descending.
export function readSort(text, otherwise) {
  const written = text || otherwise;
  return written.startsWith("-") ? { key: written.slice(1), descending: true } : { key: written, descending: false };
}

export function writeSort({ key, descending }) {
  return (descending ? "-" : "") + key;
}
