// A histogram of a column over all rows, with those that pass the filters drawn over it, and a brush.

import { drawing, element, show } from "./dom.js";
import { barsPath, scaleOf, ticks } from "./plots.js";
import { brush } from "./plots_brush.js";
import { short } from "./text.js";

const BINS = 48;

// `values` are the column's; `changed(range, done)` gets [low, high] or null. Returns {node, kept(places),
// set(range)}.
export function rangeHistogram({ label, values, changed }) {
  const scale = scaleOf(values);
  const bins = binsOf(values, scale);
  const all = counts(bins);
  const most = Math.max(1, ...all);
  const over = drawing("path", { class: "bars" });
  const area = element(
    "div",
    { class: "area" },
    drawing("svg", { viewBox: `0 0 ${BINS} 100`, preserveAspectRatio: "none", "aria-hidden": "true" }, drawing("path", { class: "all", d: barsPath(all, most) }), over),
  );
  const node = element("div", { class: "plot" }, area, axis(scale));
  const made = brush({ host: area, axes: [{ name: "x", label, scale }], changed: ({ x }, done) => changed(x, done) });
  return {
    node,
    kept: (places) => over.setAttribute("d", barsPath(counts(bins, places), most)),
    set: (range) => made.set({ x: range }),
  };
}

// In which bin each value is; BINS where it is undefined.
function binsOf(values, scale) {
  return Uint8Array.from(values, (value) => (Number.isNaN(value) ? BINS : Math.min(BINS - 1, Math.floor(scale.to(value) * BINS))));
}

function counts(bins, places = null) {
  const made = new Array(BINS + 1).fill(0);
  if (places) for (const place of places) made[bins[place]]++;
  else for (const bin of bins) made[bin]++;
  return made.slice(0, BINS);
}

export function axis(scale, name = "x", number = name === "x" ? 4 : 3) {
  return show(
    element("div", { class: `ticks ${name}`, "aria-hidden": "true" }),
    ticks(scale, number).map((value) => tick(name, scale.to(value), short(value))),
  );
}

// Those at the ends stay within the plot.
function tick(name, share, text) {
  const place = { [name === "x" ? "left" : "bottom"]: `${100 * share}%` };
  return element("span", { class: share < 0.04 ? "first" : share > 0.96 ? "last" : null, style: place }, text);
}
