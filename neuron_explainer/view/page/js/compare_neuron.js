// One neuron as two runs see it: both explanations, and both simulations over the same texts.

import { get, neuronResource, Unavailable } from "./api.js";
import { problem } from "./app.js";
import { element, show } from "./dom.js";
import { heat } from "./heat.js";
import { legend } from "./heat_legend.js";
import { scaleOf } from "./neuron_records.js";
import { link } from "./route.js";
import { units } from "./sites.js";
import { figure, interval, readable } from "./text.js";

const FEW = 6; // texts shown before one asks for all

// Fills `node`. `chosen` is the measure, `all` whether every text is shown and `more()` asks for that.
export async function fillDetail(node, { site, index, a, b, chosen, all, more, signal }) {
  let neuron;
  try {
    neuron = await get(neuronResource(site.key, index), { signal });
  } catch (error) {
    if (error instanceof Unavailable && !signal.aborted) show(node, problem(error));
    return;
  }
  if (signal.aborted) return;
  show(
    node,
    element("h2", { id: "detail" }, `${units(site, 1)} ${index}`, element("a", { href: link({ page: "neuron", site: site.key, neuron: index }) }, "all about it")),
    element("div", { class: "sides" }, side(neuron, a, "run-a", chosen.a), side(neuron, b, "run-b", chosen.b)),
    texts(neuron, { a, b, chosen, all, more }),
  );
}

function side(neuron, run, mark, column) {
  const said = neuron.explanations.find((one) => one.run === run.key);
  return element(
    "section",
    {},
    element("h3", { class: mark }, element("bdi", {}, readable(run.name))),
    statement(said),
    said?.scores.length ? scores(said.scores, column, run) : element("p", { class: "quiet" }, "Not simulated. Run ", element("code", {}, `neuron-explainer simulate ${readable(run.name)}`)),
  );
}

// The measure that is compared, of every simulator that has it.
function scores(lines, { simulator, metric }, run) {
  const having = lines.filter(({ values, failure }) => failure || Object.hasOwn(values, metric));
  return element(
    "table",
    { class: "measured" },
    element("caption", { class: "visually-hidden" }, `Scores of ${readable(run.name)}`),
    element("tbody", {}, having.map((line) => element("tr", { class: line.simulator === simulator ? "strong" : "quiet" }, element("th", { scope: "row" }, readable(line.simulator), line.null ? " (null)" : ""), scoreCells(line, metric)))),
  );
}

function scoreCells({ values, failure }, metric) {
  if (failure) return element("td", { colspan: 2, class: "bad" }, `⚠ failed: ${readable(failure.cause)}`);
  const { value, interval: ends, undefined: why } = values[metric];
  if (value === null) return element("td", { colspan: 2 }, `undefined: ${readable(why ?? "no reason was kept")}`);
  return [element("td", { class: "number" }, figure(value)), element("td", { class: "quiet" }, interval(ends))];
}

function statement(said) {
  if (said?.failure) return element("p", { class: "bad" }, `⚠ ${readable(said.failure.stage)} failed: ${readable(said.failure.cause)}`);
  if (!said || said.text === null) return element("p", { class: "quiet" }, "no explanation");
  return element("p", { class: "statement", dir: "auto", tabindex: "0" }, readable(said.text));
}

function texts(neuron, { a, b, chosen, all, more }) {
  const pairs = neuron.records
    .map((record) => ({ record, one: predicted(record, a, chosen.a), other: predicted(record, b, chosen.b) }))
    .filter(({ one, other }) => one || other);
  if (!pairs.length) return element("p", { class: "notice" }, "No text of it was simulated by either run.");
  const scale = scaleOf(neuron.records);
  const highest = Math.max(10, ...pairs.flatMap(({ one, other }) => [...(one?.activations ?? []), ...(other?.activations ?? [])]));
  const shown = all ? pairs : pairs.slice(0, FEW);
  return [
    element("h3", {}, "Both simulations over the same texts"),
    element("p", { class: "quiet reading" }, "Of each text the first line is what the neuron does, the second what ", element("span", { class: "run-a" }, readable(a.name)), " predicts, the third what ", element("span", { class: "run-b" }, readable(b.name)), " predicts."),
    legend({ scale, mode: "stacked", simulator: "predictions", simulationScale: highest, pairs: neuron.unit === "head", negative: neuron.records.some(({ activations }) => activations.some((value) => value < -0.02 * scale)) }),
    element("ol", { class: "both flat" }, shown.map((pair) => item(pair, { a, b, scale, highest }))),
    shown.length < pairs.length ? element("button", { type: "button", onclick: more }, `Show all ${pairs.length} texts`) : null,
  ];
}

function predicted(record, run, column) {
  return record.simulations.find((one) => one.run === run.key && one.simulator === column.simulator) ?? null;
}

function item({ record, one, other }, { a, b, scale, highest }) {
  const line = (found, run) => ({ activations: found?.activations ?? record.tokens.map(() => null), scale: highest, name: readable(run.name) });
  const agreement = (found) => (found ? (found.correlation === null ? "undefined" : figure(found.correlation, 2)) : "not simulated");
  return element(
    "li",
    {},
    element("div", { class: "caption" }, `${record.kind}${record.split ? `, ${record.split}` : ""} · maximum ${figure(record.maximum, 2)} · correlation A ${agreement(one)}, B ${agreement(other)}`),
    heat({ ...record, scale, mode: "stacked", simulation: [line(one, a), line(other, b)], snippet: false }),
  );
}
