// What the columns of a layer's table are called and hold.

import { element } from "./dom.js";
import { link } from "./route.js";
import { runName } from "./sites.js";
import { metricName, readable, short } from "./text.js";

export const TEXTS = ["neuron", "explanation", "tokens"]; // beside the columns of numbers

// {label, hint} of a column of numbers: scores say whose they are.
export function called(column, workspace, severalRuns) {
  if (column.kind !== "score") return { label: readable(column.label), hint: null };
  const parts = [readable(column.simulator), severalRuns ? runName(workspace, column.run) : null];
  return { label: metricName(column.metric), hint: parts.filter(Boolean).join(" · ") };
}

export function fullName(column, workspace) {
  const { label, hint } = called(column, workspace, true);
  return hint ? `${label} (${hint})` : label;
}

// The column of a run's score that stands for it, or null.
export function mainColumn(columns, run) {
  const main = run?.main;
  if (!main) return null;
  return columns.known.find((column) => column.run === run.key && column.simulator === main.simulator && column.metric === main.metric) ?? null;
}

// The columns shown where none were chosen; on a narrow screen those that matter most.
export function usualColumns(columns, run, narrow) {
  const main = mainColumn(columns, run);
  if (narrow) return ["neuron", "explanation", main?.key ?? columns.known[0]?.key].filter(Boolean);
  const random = main && columns.known.find((column) => column.run === main.run && column.simulator === main.simulator && column.metric === "correlation_random_only");
  const statistics = ["density", "maximum"].filter((key) => columns.find(key));
  const numbers = [main?.key, random && random.key !== main.key ? random.key : null, ...statistics];
  return ["neuron", "explanation", ...numbers.filter(Boolean), "tokens"];
}

export function neuronColumn(columns, site) {
  const cell = (place) => element("a", { href: link({ page: "neuron", site: site.key, neuron: columns.neuron(place) }), tabindex: "-1" }, String(columns.neuron(place)));
  return { key: "neuron", label: site.unit, kind: "number", width: "5.2rem", sortable: true, cell };
}

export function numberColumn(key, columns, names) {
  const cell = (place) => short(nullable(columns.values(key)?.[place]));
  return { key, ...names, kind: "number", width: "minmax(6.6rem, .8fr)", sortable: true, cell };
}

function nullable(value) {
  return value === undefined || Number.isNaN(value) ? null : value;
}

export function explanationColumn(rows, run, { key = "explanation", label = "explanation", tokens = false } = {}) {
  const cell = (place) => {
    const row = rows.at(place);
    if (!row) return placeholder();
    const said = explained(row, run);
    return tokens && !row.error ? [said, element("div", { class: "under" }, tokenList(row.tokens))] : said;
  };
  return { key, label, kind: "text", width: "minmax(14rem, 4fr)", sortable: false, cell };
}

function explained(row, run) {
  if (row.error) return element("span", { class: "bad" }, `⚠ ${readable(row.error)}`);
  if (!run) return element("span", { class: "quiet" }, "not explained");
  if (Object.hasOwn(row.failures, run)) return element("span", { class: "bad" }, `⚠ failed: ${readable(row.failures[run])}`);
  if (!Object.hasOwn(row.explanations, run)) return element("span", { class: "quiet" }, "no explanation");
  return element("span", { class: "clamp", dir: "auto" }, readable(row.explanations[run]));
}

export function tokensColumn(rows) {
  const cell = (place) => {
    const row = rows.at(place);
    return row ? tokenList(row.tokens ?? []) : placeholder();
  };
  return { key: "tokens", label: "strongest tokens", kind: "text", width: "minmax(9rem, 1.6fr)", sortable: false, cell };
}

function tokenList(tokens) {
  return element("span", { class: "tokens" }, tokens.map((token) => [element("bdi", { class: "token" }, readable(token)), " "]));
}

function placeholder() {
  return element("span", { class: "placeholder", "aria-label": "not here yet", role: "img" });
}
