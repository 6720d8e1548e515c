// What the columns of a layer's table are called and hold.

import { element } from "./dom.js";
import { scaleOf } from "./plots.js";
import { link } from "./route.js";
import { runName } from "./sites.js";
import { figure, metricName, readable, short } from "./text.js";

export const TEXTS = ["neuron", "explanation", "tokens"]; // beside the columns of numbers

// {label, hint} of a column of numbers: scores say whose they are.
export function called(column, workspace, withRun) {
  if (column.kind !== "score") return { label: readable(column.label), hint: null };
  const [label, ...kind] = metricName(column.metric).split(", ");
  const parts = [...kind, readable(column.simulator), withRun ? runName(workspace, column.run) : null];
  return { label, hint: parts.filter(Boolean).join(" · ") };
}

export function fullName(column, workspace) {
  const { label, hint } = called(column, workspace, true);
  return hint ? `${label} · ${hint}` : label;
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

// In what order columns of numbers stand: the scores of the run at hand first.
export function ordered(columns, run) {
  const main = run?.main;
  const rank = (column) => (column.kind !== "score" ? 1 : column.run === run?.key && column.simulator === main?.simulator ? 0 : 2);
  return [...columns.known].sort((a, b) => rank(a) - rank(b));
}

export function neuronColumn(columns, site) {
  const cell = (place) => element("a", { href: link({ page: "neuron", site: site.key, neuron: columns.neuron(place) }), tabindex: "-1" }, String(columns.neuron(place)));
  return { key: "neuron", label: site.unit, kind: "number", least: 3.4, share: 0.2, sortable: true, cell };
}

// Scores to three places; other figures to as many as their column needs, so that points stand in line.
export function numberColumn(column, columns, names) {
  const values = columns.values(column.key);
  const write = column.kind === "score" ? figure : writerOf(values);
  const cell = (place) => write(nullable(values?.[place]));
  return { key: column.key, ...names, kind: "number", least: 5.6, share: 0.7, sortable: true, cell };
}

const writers = new WeakMap(); // by values: they are many, and stay as they are

function writerOf(values) {
  if (!values) return short;
  if (!writers.has(values)) writers.set(values, newWriter(values));
  return writers.get(values);
}

function newWriter(values) {
  const known = values.filter((value) => !Number.isNaN(value));
  const most = known.reduce((high, value) => Math.max(high, Math.abs(value)), 0);
  if (!known.length || scaleOf(known).log || most >= 1e5) return short;
  const digits = known.every(Number.isInteger) ? 0 : Math.min(4, Math.max(0, 2 - Math.floor(Math.log10(most || 1))));
  return (value) => figure(value, digits);
}

function nullable(value) {
  return value === undefined || Number.isNaN(value) ? null : value;
}

// The same column where there is little room.
export function narrower(column) {
  const least = { neuron: 3.2, text: 8.4, number: 4.4 };
  return { ...column, least: least[column.key] ?? least[column.kind] };
}

export function explanationColumn(rows, run, { key = "explanation", label = "explanation", tokens = false } = {}) {
  const cell = (place) => {
    const row = rows.at(place);
    if (!row) return placeholder();
    const said = explained(row, run);
    return tokens && !row.error ? [said, element("div", { class: "under" }, tokenList(row.tokens))] : said;
  };
  return { key, label, kind: "text", least: 11, share: 4, sortable: false, cell };
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
  return { key: "tokens", label: "strongest tokens", kind: "text", least: 9, share: 1.6, sortable: false, cell };
}

function tokenList(tokens) {
  return element("span", { class: "tokens" }, tokens.map((token) => [element("bdi", { class: "token" }, readable(token)), " "]));
}

function placeholder() {
  return element("span", { class: "placeholder", "aria-label": "not here yet", role: "img" });
}
