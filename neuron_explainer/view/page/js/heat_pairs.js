// From where an attention head looks to where: an arc for one pair, a triangle for many.

import { drawing } from "./dom.js";
import { short } from "./text.js";

const WIDTH = 200;
const HEIGHT = 26;

// The positions of one record as a line, with an arc from the query back to the key.
export function pairArc({ tokens, pair, maximum }, scale) {
  const at = (place) => 3 + ((WIDTH - 6) * (place + 0.5)) / tokens.length;
  const [query, key] = pair;
  const [from, to] = [at(query), at(key)];
  const reach = Math.max(6, Math.min(HEIGHT - 8, ((from - to) / WIDTH) * 60));
  const level = scale > 0 ? Math.max(0.15, Math.min(1, maximum / scale)) : 0.15;
  return drawing(
    "svg",
    { class: "arc", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `position ${query} to position ${key}, ${query - key} back, of ${tokens.length}` },
    drawing("path", { class: "ground", d: `M3 ${HEIGHT - 4}H${WIDTH - 3}` }),
    drawing("path", { class: "reach", d: `M${from} ${HEIGHT - 4}C${from} ${HEIGHT - 6 - 1.3 * reach} ${to} ${HEIGHT - 6 - 1.3 * reach} ${to} ${HEIGHT - 4}`, style: { "stroke-width": (1 + 3 * level).toFixed(2) } }),
    drawing("circle", { class: "from", cx: from, cy: HEIGHT - 4, r: 2.6 }),
    drawing("circle", { class: "to", cx: to, cy: HEIGHT - 4, r: 2.6 }),
  );
}

const SIDE = 220;
const EDGE = 22;

// Every record's pair as a point, keys across and queries down: the lower triangle of a pattern.
// The larger the point the stronger; random records are rings.
export function pairTriangle(records, scale) {
  const paired = records.filter((record) => record.pair);
  const size = Math.max(2, ...paired.map((record) => record.tokens.length));
  const at = (place) => EDGE + ((SIDE - EDGE - 6) * place) / (size - 1);
  const points = paired.map(({ pair: [query, key], kind, maximum }) =>
    drawing("circle", { class: kind, cx: at(key), cy: at(query) - EDGE + 6, r: (1.5 + 3.5 * Math.max(0, Math.min(1, maximum / scale))).toFixed(2) },
      drawing("title", {}, `${kind}: position ${query} to ${key}, ${short(maximum)}`)),
  );
  const [near, far] = [at(0), at(size - 1)];
  return drawing(
    "svg",
    { class: "triangle", viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img", "aria-label": `${paired.length} pairs of positions; ${distances(paired)}` },
    drawing("path", { class: "ground", d: `M${near} ${near - EDGE + 6}L${far} ${far - EDGE + 6}H${near}Z` }),
    points,
    drawing("text", { x: (near + far) / 2, y: far - EDGE + 20, "text-anchor": "middle" }, "key position"),
    drawing("text", { x: 11, y: SIDE / 2, "text-anchor": "middle", transform: `rotate(-90 11 ${SIDE / 2})` }, "query position"),
  );
}

// How far back the strongest pairs reach, in words.
export function distances(records) {
  const back = records.filter(({ kind }) => kind === "top").map(({ pair: [query, key] }) => query - key).sort((a, b) => a - b);
  if (!back.length) return "no top pairs";
  return `top pairs reach ${back[0]} to ${back.at(-1)} tokens back, half of them at most ${back[Math.floor((back.length - 1) / 2)]}`;
}
