// The plots above a table: three histograms and a scatter, each of a column that can be chosen.

import { element, show } from "./dom.js";
import { rangeHistogram } from "./plots_histogram.js";
import { scatter } from "./plots_scatter.js";

// `entries` are [{key, name}]; `picked(patch)` is told {histograms: keys} or {x} or {y}; `brushed(ranges,
// done)` gets a Map of column to range or null. Returns {node, update(view, columns, kept)}.
export function plotsPanel({ entries, picked, brushed, toggled, signal }) {
  const body = element("div", { class: "plots" });
  const node = element("details", { class: "plot-panel" }, element("summary", {}, "Distributions"), body);
  node.addEventListener("toggle", () => toggled(node.open));
  let drawn = null;
  let parts = [];
  const update = (view, columns, kept) => {
    const wanted = JSON.stringify([view.histograms, view.x, view.y]);
    if (wanted !== drawn) {
      parts = [...histograms(view, columns, entries, picked, brushed), scatterPart({ view, columns, entries, picked, brushed, signal })];
      const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
      show(body, parts.map((part) => part.node));
      if (focused) body.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
      drawn = wanted;
    }
    parts.forEach((part) => part.update(view.filters, kept));
  };
  return { node, update };
}

function chooser(label, entries, value, changed) {
  return element(
    "select",
    { "aria-label": label, onchange: (event) => changed(event.target.value) },
    entries.map(({ key, name }) => element("option", { value: key, selected: key === value }, name)),
  );
}

function nameOf(entries, key) {
  return entries.find((entry) => entry.key === key)?.name ?? key;
}

function histograms(view, columns, entries, picked, brushed) {
  return view.histograms.map((key, place) => {
    const changed = (range, done) => brushed(new Map([[key, range]]), done);
    const made = rangeHistogram({ label: nameOf(entries, key), values: columns.values(key), changed });
    const choose = (chosen) => picked({ histograms: view.histograms.map((other, at) => (at === place ? chosen : other)) });
    const node = element("figure", {}, element("figcaption", {}, chooser(`Histogram ${place + 1}`, entries, key, choose)), made.node);
    const update = (filters, kept) => {
      made.kept(kept);
      made.set(filters.get(key) ?? null);
    };
    return { node, update };
  });
}

function scatterPart({ view, columns, entries, picked, brushed, signal }) {
  const { x, y } = view;
  const side = (key) => ({ label: nameOf(entries, key), values: columns.values(key) });
  const changed = (ranges, done) => brushed(new Map([[x, ranges.x], [y, ranges.y]]), done);
  const made = scatter({ x: side(x), y: side(y), changed, signal });
  const node = element(
    "figure",
    { class: "pair" },
    element("figcaption", {}, chooser("Upright axis", entries, y, (key) => picked({ y: key })), " against ", chooser("Level axis", entries, x, (key) => picked({ x: key }))),
    made.node,
  );
  const update = (filters, kept) => {
    made.kept(kept);
    made.set({ x: filters.get(x) ?? null, y: filters.get(y) ?? null });
  };
  return { node, update };
}
