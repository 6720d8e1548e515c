// Small plots as SVG that need no interaction, and the scales that all plots share.

import { drawing } from "./dom.js";
import { figure, short } from "./text.js";

// A scale of `values` (null and NaN are left out): `to` takes a value to 0 … 1 and `from` back. It is
// logarithmic where the positive values span so much that most would fall into one bin; what is not
// positive then stands at the lower end.
export function scaleOf(values, { low, high } = {}) {
  const known = Float64Array.from(values).filter((value) => !Number.isNaN(value)).sort();
  if (!known.length) return linear(0, 1);
  const [least, most] = [low ?? known[0], high ?? known.at(-1)];
  const positive = known.findLastIndex((value) => value <= 0) + 1;
  const middle = known[positive + Math.floor((known.length - positive) / 2)];
  const skewed = least >= 0 && positive < known.length && most / middle > 30;
  return skewed ? logarithmic(known[positive], most) : linear(least, most);
}

export function linear(low, high) {
  const width = high - low || 1;
  return { low, high, log: false, to: (value) => clamp((value - low) / width), from: (share) => low + share * width };
}

function logarithmic(low, high) {
  const [from, width] = [Math.log10(low), Math.log10(high / low) || 1];
  return {
    low, high, log: true,
    to: (value) => (value <= low ? 0 : clamp((Math.log10(value) - from) / width)),
    from: (share) => 10 ** (from + share * width),
  };
}

function clamp(share) {
  return Math.min(1, Math.max(0, share));
}

// About `number` round values within a scale.
export function ticks(scale, number = 4) {
  if (scale.log) return powers(scale, number);
  const step = roundStep((scale.high - scale.low) / number);
  const first = Math.ceil(scale.low / step - 1e-9);
  const found = [];
  for (let place = first; place * step <= scale.high + step * 1e-9; place++) found.push(Number((place * step).toPrecision(12)));
  return found;
}

function powers(scale, number) {
  const [first, last] = [Math.ceil(Math.log10(scale.low) - 1e-9), Math.floor(Math.log10(scale.high) + 1e-9)];
  const step = Math.max(1, Math.ceil((last - first) / number));
  const found = [];
  for (let power = first; power <= last; power += step) found.push(10 ** power);
  return found.length > 1 ? found : [scale.low, scale.high];
}

function roundStep(size) {
  if (!(size > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(size));
  return power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= size * 0.999);
}

// The outline of bars as one path in a box of `counts.length` by 100.
export function barsPath(counts, most) {
  const parts = [];
  counts.forEach((number, place) => {
    if (number) parts.push(`M${place},100V${(100 - Math.max(2, (100 * number) / most)).toFixed(2)}h.92V100Z`);
  });
  return parts.join("");
}

// A small histogram: `edges` are one more than `counts`. `label` says whose it is; `mean` is marked.
export function histogram({ edges, counts, label, mean = null, width = 120, height = 26 }) {
  const scale = linear(edges[0], edges.at(-1));
  const total = counts.reduce((sum, number) => sum + number, 0);
  const says = `${label}: ${total} between ${short(edges[0])} and ${short(edges.at(-1))}${mean === null ? "" : `, mean ${figure(mean)}`}`;
  const at = (value) => (scale.to(value) * counts.length).toFixed(2);
  return drawing(
    "svg",
    { class: "histogram", role: "img", "aria-label": says, width, height, viewBox: `0 0 ${counts.length} 100`, preserveAspectRatio: "none" },
    drawing("title", {}, says),
    drawing("path", { class: "ground", d: `M0,100H${counts.length}` }),
    edges[0] < 0 && edges.at(-1) > 0 ? drawing("path", { class: "zero", d: `M${at(0)},0V100` }) : null,
    drawing("path", { class: "bars", d: barsPath(counts, Math.max(1, ...counts)) }),
    mean === null ? null : drawing("path", { class: "mean", d: `M${at(mean)},0V100` }),
  );
}
