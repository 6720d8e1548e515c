// A record as a heat map: its text, each token as strongly coloured as it is active.
//
//   heat({tokens, activations, unscored, scale, pair, simulation, mode, snippet}) → element
//
//   tokens, activations  as in the contract; an activation of null is undefined: hatched
//   unscored             positions that do not count (BOS); shown quietly
//   scale                the activation that is shown at full strength, one for all records
//   pair                 [query, key] of an attention head, or null
//   simulation           {activations, scale} of a simulator, a list of such (stacked only), or null
//   mode                 "true"; "stacked": a line of predictions under each line of text;
//                        "overlaid": the prediction is a bar under the token
//   snippet              show the surroundings of the maximum alone
//
// Strength is no matter of colour alone: the line under a token is thicker the stronger it is, a
// negative activation has its line above, and the strongest token is framed.

import { element } from "./dom.js";
import { explainTokens } from "./heat_tip.js";
import { named, tokenNodes } from "./heat_tokens.js";
import { windows } from "./heat_window.js";
import { short } from "./text.js";

export function heat(options) {
  const record = { unscored: [], pair: null, mode: "true", snippet: false, ...options };
  record.simulations = [options.simulation ?? []].flat();
  const mode = record.simulations.length ? record.mode : "true";
  const peak = strongest(record);
  const shown = record.snippet ? windows(record, peak) : [[0, record.tokens.length]];
  const map = element(
    "div",
    { class: `heat ${mode}`, role: "group", "aria-label": label(record, peak), dir: "auto", style: { "--heat-rows": record.simulations.length } },
    line(record, shown, { peak, predicted: mode === "overlaid" }),
    mode === "stacked" ? record.simulations.map((one, at) => predictions(record, one, at, shown)) : null,
  );
  explainTokens(map, (place) => lines(record, place));
  return map;
}

// The position with the largest scored activation; of a head the query.
export function strongest({ activations, unscored = [], pair = null }) {
  if (pair) return pair[0];
  const quiet = new Set(unscored);
  let best = -1;
  activations.forEach((value, place) => {
    if (value !== null && !quiet.has(place) && (best < 0 || value > activations[best])) best = place;
  });
  return Math.max(best, 0);
}

function line(record, shown, { peak, predicted }) {
  const quiet = new Set(record.unscored);
  const nodes = [];
  shown.forEach(([first, end], part) => {
    if (first > 0) nodes.push(gap(first - (part ? shown[part - 1][1] : 0)));
    for (let place = first; place < end; place++) {
      const token = span(record.tokens[place], quiet.has(place) ? 0 : record.activations[place], record.scale);
      token.dataset.place = place;
      token.setAttribute("tabindex", place === peak ? "0" : "-1");
      if (quiet.has(place)) token.classList.add("unscored");
      if (place === peak && !quiet.has(place) && record.activations[place] > 0) token.classList.add("peak");
      if (record.pair) mark(token, record.pair, place);
      if (predicted && !quiet.has(place)) bar(token, record.simulations[0], place);
      nodes.push(token);
    }
  });
  const last = shown.at(-1)[1];
  if (last < record.tokens.length) nodes.push(gap(record.tokens.length - last));
  return element("span", { class: "line" }, nodes);
}

// The same text again, coloured by predictions; for the eye alone, since the tooltip has both.
function predictions(record, { activations, scale }, at, shown) {
  const quiet = new Set(record.unscored);
  const nodes = shown.map(([first, end], part) => [
    first > 0 ? gap(first - (part ? shown[part - 1][1] : 0)) : null,
    record.tokens.slice(first, end).map((token, offset) => {
      const counts = !quiet.has(first + offset);
      const made = counts ? span(token, activations[first + offset], scale) : span(token, 0, 1);
      if (!counts) made.classList.add("unscored");
      return made;
    }),
  ]);
  return element("span", { class: "line predicted", "aria-hidden": "true", style: { "--heat-row": at + 1 } }, nodes);
}

function span(token, value, scale) {
  const made = element("span", {}, tokenNodes(token));
  if (value === null || value === undefined) made.classList.add("undefined");
  else paint(made, scale > 0 ? value / scale : 0);
  return made;
}

const STEPS = [0.05, 0.35, 0.7]; // levels from which the line is 1, 2, 3 pixels thick

function paint(made, level) {
  const size = Math.min(1, Math.abs(level));
  if (size < 0.02) return;
  made.classList.add(level > 0 ? "above" : "below");
  made.style.setProperty("--heat-level", size.toFixed(3));
  made.style.setProperty("--heat-thick", `${STEPS.filter((step) => size >= step).length}px`);
}

function bar(token, { activations, scale }, place) {
  const value = activations[place];
  if (value === null || value === undefined) return token.classList.add("unforeseen");
  const level = Math.max(0, Math.min(1, value / scale));
  token.style.setProperty("--heat-bar", `${(6 * level).toFixed(1)}px`);
}

function mark(token, [query, key], place) {
  if (place === query) token.prepend(element("span", { class: "role" }, query === key ? "query, key" : "query"));
  else if (place === key) token.prepend(element("span", { class: "role" }, "key"));
  if (place === query) token.classList.add("pair-query");
  if (place === key) token.classList.add("pair-key");
}

function gap(tokens) {
  return element("span", { class: "gap" }, element("span", { class: "visually-hidden" }, `${tokens} tokens left out`), "…");
}

function label(record, peak) {
  const value = short(record.activations[peak]);
  if (record.pair) {
    const [query, key] = record.pair.map((place) => named(record.tokens[place]));
    return `${record.tokens.length} tokens; from “${query}” to “${key}”: ${value}`;
  }
  return `${record.tokens.length} tokens; strongest ${value} at “${named(record.tokens[peak] ?? "")}”`;
}

function lines(record, place) {
  const quiet = record.unscored.includes(place);
  const value = record.activations[place];
  const said = [`“${named(record.tokens[place])}” · token ${place}`, `activation ${value === null ? "undefined" : short(value)}`];
  for (const { name = "predicted", activations, scale } of quiet ? [] : record.simulations) {
    const predicted = activations[place] ?? null;
    said.push(`${name} ${predicted === null ? "undefined" : `${short(predicted)} of ${short(scale)}`}`);
  }
  if (quiet) said.push("does not count");
  if (record.pair && place !== record.pair[0]) said[1] = place === record.pair[1] ? "the key" : "not of this pair";
  return said;
}
