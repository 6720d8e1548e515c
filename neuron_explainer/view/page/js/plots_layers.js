// A bar a layer: the mean score with its interval, and the mean over random records alone.

import { drawing, element } from "./dom.js";
import { linear, ticks } from "./plots.js";
import { figure, interval } from "./text.js";

const TALL = 132;
const LEFT = 34;
const FOOT = 20;

// `entries` are [{label, name, mean, interval, random, href}] from first to last layer; `mean` is null where
// nothing is known (yet). `says` names the figure; `ends` are those of its axis, so that figures side by side
// can be compared.
export function layerBars({ entries, says, width, ends = endsOf(entries) }) {
  const scale = linear(...ends);
  const step = Math.min(44, (width - LEFT - 4) / Math.max(1, entries.length));
  const y = (value) => 6 + (1 - scale.to(value)) * TALL;
  const wide = LEFT + step * entries.length + 4;
  return drawing(
    "svg",
    { class: "layers", role: "group", "aria-label": says, width: wide, height: TALL + FOOT + 8, viewBox: `0 0 ${wide} ${TALL + FOOT + 8}` },
    ticks(scale, 4).map((value) => rule(value, y(value), wide)),
    entries.map((entry, place) => bar(entry, LEFT + step * place, step, y)),
    entries.map((entry, place) => foot(entry, place, step, entries.length)),
  );
}

export function endsOf(entries) {
  const values = entries.flatMap((entry) => (entry.mean === null ? [] : [entry.mean, entry.random ?? 0, ...(entry.interval ?? [])]));
  return [Math.min(0, ...values), Math.max(0.1, ...values)];
}

function rule(value, y, wide) {
  return drawing(
    "g",
    { "aria-hidden": "true" },
    drawing("path", { class: value === 0 ? "axis" : "rule", d: `M${LEFT},${y}H${wide}` }),
    drawing("text", { x: LEFT - 6, y: y + 3.5, "text-anchor": "end" }, String(value)),
  );
}

function bar(entry, x, step, y) {
  if (entry.mean === null) return drawing("path", { class: "unknown", d: `M${x + step / 2},${y(0) - 3}v3` });
  const wide = Math.max(2, step * 0.72);
  const left = x + (step - wide) / 2;
  const middle = x + step / 2;
  const says = `${entry.name}: ${figure(entry.mean)} ${interval(entry.interval)}${entry.random === null ? "" : `; random records only ${figure(entry.random)}`}`;
  const [top, base] = [Math.min(y(entry.mean), y(0)), Math.max(y(entry.mean), y(0))];
  return drawing(
    "a",
    { href: entry.href, "aria-label": says },
    drawing("title", {}, says),
    drawing("rect", { class: "hit", x, y: 0, width: step, height: TALL + 6 }),
    drawing("rect", { class: "bar", x: left, y: top, width: wide, height: Math.max(0.5, base - top) }),
    entry.interval ? drawing("path", { class: "interval", d: `M${middle},${y(entry.interval[0])}V${y(entry.interval[1])}` }) : null,
    entry.random === null ? null : drawing("path", { class: "random", d: `M${left},${y(entry.random)}h${wide}` }),
  );
}

function foot(entry, place, step, number) {
  const every = [1, 2, 4, 5, 10, 20].find((skip) => skip * step >= 22) ?? 50;
  if (place % every && place !== number - 1) return null;
  if (place === number - 1 && place % every && (place % every) * step < 20) return null;
  const at = { x: LEFT + step * (place + 0.5), y: TALL + FOOT + 2, "text-anchor": "middle", "aria-hidden": "true" };
  return drawing("text", at, entry.label);
}

export function layersLegend() {
  return element(
    "p",
    { class: "layers-legend quiet" },
    element("span", { class: "key bar" }), "mean over neurons, ",
    element("span", { class: "key interval" }), "95 % interval, ",
    element("span", { class: "key random" }), "random records only",
  );
}
