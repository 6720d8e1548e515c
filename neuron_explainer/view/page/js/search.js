// Which rows hold words, by the index of the contract: one file for each beginning of a word.

import { get, resource } from "./api.js";

const WORDS = /[\p{L}\p{N}\p{M}]+|[^\p{L}\p{N}\p{M}\p{Z}\p{C}]+/gu;

// The words of a text as the index has them.
export function words(text) {
  return text.normalize("NFKC").toLowerCase().match(WORDS) ?? [];
}

export function bucketOf(word, buckets) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode([...word].slice(0, 2).join(""))) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash % buckets;
}

// The rows in which every word of `text` stands or begins a word: {rows: Set or null (all of them),
// common: words that stand in too many rows for the index to list}.
export async function search(site, index, text, signal) {
  let rows = null;
  const common = [];
  for (const word of new Set(words(text))) {
    const found = await rowsOf(site, index, word, signal);
    if (found === null) common.push(word);
    else rows = rows === null ? found : new Set([...found].filter((row) => rows.has(row)));
  }
  return { rows, common };
}

async function rowsOf(site, index, word, signal) {
  const listed = (await get(resource(site, "search", bucketOf(word, index.buckets)), { signal })).words;
  if ([...word].length < 2) return Object.hasOwn(listed, word) ? listed[word] && new Set(listed[word]) : new Set();
  const found = new Set();
  for (const [known, rows] of Object.entries(listed)) {
    if (!known.startsWith(word)) continue;
    if (rows === null) return null;
    for (const row of rows) found.add(row);
  }
  return found;
}
