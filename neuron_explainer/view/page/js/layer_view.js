// What a layer's page shows, read from the URL and written to it.

import { readFilters, readSort, writeFilters, writeSort } from "./columns.js";
import { runsOf } from "./sites.js";
import { mainColumn, TEXTS, usualColumns } from "./table_columns.js";

const HISTOGRAMS = 3;

// {run, sort, filters, q, shown, histograms, x, y, plots, panel, at}; what the URL does not say, or says of
// columns that do not exist, is as usual.
export function readView(state, { site, workspace, columns, narrow }) {
  const runs = runsOf(workspace, site);
  const run = runs.find(({ key }) => key === state.run) ?? runs[0] ?? null;
  const exists = (key) => key === "neuron" || columns.find(key) !== null;
  const usual = usualPlots(columns, run);
  const chosen = state.columns?.split(",").filter((key) => TEXTS.includes(key) || exists(key));
  const sort = readSort(state.sort, "neuron");
  const pick = (key, otherwise) => (key && exists(key) ? key : otherwise);
  return {
    run,
    sort: exists(sort.key) ? sort : readSort("", "neuron"),
    filters: new Map([...readFilters(state.f)].filter(([key]) => exists(key))),
    q: state.q ?? "",
    shown: new Set(["neuron", ...(chosen ?? usualColumns(columns, run, narrow))]),
    chosen: Boolean(chosen),
    histograms: usual.histograms.map((key, place) => pick(state.h?.split(",")[place], key)),
    x: pick(state.x, usual.x),
    y: pick(state.y, usual.y),
    plots: state.plots ? state.plots === "open" : !narrow,
    panel: state.panel === "open",
    at: /^\d+$/.test(state.at ?? "") ? Number(state.at) : null,
  };
}

function usualPlots(columns, run) {
  const main = mainColumn(columns, run)?.key;
  const known = columns.known.map(({ key }) => key);
  const first = [main, "density", "maximum"].filter((key) => known.includes(key));
  const order = [...new Set([...first, ...known])];
  const at = (place) => order[place] ?? order[0] ?? "neuron";
  const x = known.includes("density") ? "density" : at(1);
  return { histograms: order.slice(0, HISTOGRAMS), x, y: main ?? at(0) };
}

// Parameters of the URL; null where it is as usual.
export function writeView(view, usual) {
  const unless = (value, other) => (String(value) === String(other) ? null : value);
  return {
    run: unless(view.run?.key ?? null, usual.run?.key ?? null),
    sort: unless(writeSort(view.sort), "neuron"),
    f: writeFilters(view.filters),
    q: view.q,
    columns: view.chosen ? [...view.shown].join(",") : null,
    h: unless(view.histograms.join(","), usual.histograms.join(",")),
    x: unless(view.x, usual.x),
    y: unless(view.y, usual.y),
    plots: unless(view.plots ? "open" : "closed", usual.plots ? "open" : "closed"),
    panel: view.panel ? "open" : null,
    at: view.at,
  };
}

// The columns whose numbers are needed.
export function needed(view) {
  const plotted = view.plots ? [...view.histograms, view.x, view.y] : [];
  const shown = [...view.shown].filter((key) => !TEXTS.includes(key));
  return [...new Set(["neuron", ...shown, view.sort.key, ...view.filters.keys(), ...plotted])];
}
