// A neuron's records as heat maps, all on one scale, and the controls over which and how.

import { element, show } from "./dom.js";
import { fold } from "./fold.js";
import { heat } from "./heat.js";
import { legend } from "./heat_legend.js";
import { pairArc } from "./heat_pairs.js";
import { missingPart } from "./neuron_explanations.js";
import { change, state } from "./route.js";
import { runName } from "./sites.js";
import { figure, percent, readable, short } from "./text.js";

const KINDS = { top: "Top", random: "Random", quantile: "Quantile", all: "All" };
const MODES = { true: "Activations", stacked: "Stacked", overlaid: "Overlaid" };
const JUDGED = { true: "Activations", stacked: "With verdicts" }; // one prediction for a whole record

// What the URL asks for, as far as there is such a thing.
export function view(neuron) {
  const asked = state();
  const kinds = Object.keys(KINDS).filter((kind) => kind === "all" || neuron.records.some((record) => record.kind === kind));
  const simulators = simulatorsOf(neuron);
  const chosen =
    simulators.find(({ run, simulator }) => run === asked.run && simulator === asked.simulator) ??
    simulators.find(({ run }) => run === asked.run) ??
    simulators[0] ??
    null;
  const mode = chosen && Object.hasOwn(modesOf(neuron, simulators), asked.mode ?? "") ? asked.mode : "true";
  return { kinds, kind: kinds.includes(asked.records) ? asked.records : kinds[0], simulators, chosen, mode, full: asked.full === "1", flat: (asked.breaks ?? (asked.full === "1" ? "1" : "0")) === "0" };
}

// Every simulator that predicted one of the records; those that know nothing of the neuron last.
function simulatorsOf(neuron) {
  const found = new Map();
  for (const record of neuron.records) for (const { run, simulator } of record.simulations) found.set(`${run} ${simulator}`, { run, simulator });
  const isNull = ({ run, simulator }) => neuron.explanations.find((one) => one.run === run)?.scores.find((one) => one.simulator === simulator)?.null ?? false;
  return [...found.values()].map((one) => ({ ...one, null: isNull(one) })).sort((a, b) => a.null - b.null);
}

export function recordsOf(neuron, workspace) {
  const section = element("section", { class: "records", "aria-labelledby": "records" });
  const redraw = (parameters) => {
    const kept = document.activeElement?.dataset.keep;
    change(parameters, { step: true });
    fillRecords(section, neuron, workspace, redraw);
    if (kept) section.querySelector(`[data-keep="${CSS.escape(kept)}"]`)?.focus();
  };
  fillRecords(section, neuron, workspace, redraw);
  return section;
}

function fillRecords(section, neuron, workspace, redraw) {
  const seen = view(neuron);
  const scale = scaleOf(neuron.records);
  section.classList.toggle("flat", seen.flat);
  const groups = seen.kind ? groupsOf(neuron.records, seen) : [];
  show(
    section,
    element("h2", { id: "records" }, neuron.unit === "head" ? "Pairs in their texts" : "Records"),
    neuron.records.length ? controls(neuron, workspace, seen, redraw) : missingPart("No records of it were kept.", null),
    neuron.records.length ? legendOf(neuron, workspace, seen, scale) : null,
    seen.mode === "true" && !seen.chosen && neuron.explanations.length ? element("p", { class: "quiet note" }, "No predictions to show beside the activations: nothing was simulated.") : null,
    groups.map((group) => groupOf(group, neuron, seen, scale)),
  );
}

export function scaleOf(records) {
  const highest = Math.max(0, ...records.map(({ maximum }) => maximum ?? 0));
  return highest > 0 ? highest : Math.max(1e-9, ...records.flatMap(({ activations }) => activations.map((value) => Math.abs(value ?? 0))));
}

function controls(neuron, workspace, seen, redraw) {
  const number = (kind) => (kind === "all" ? neuron.records.length : neuron.records.filter((record) => record.kind === kind).length);
  return element(
    "div",
    { class: "controls" },
    choice("Records", seen.kinds.map((kind) => [kind, `${KINDS[kind]} ${number(kind)}`]), seen.kind, (kind) => redraw({ records: kind }), "records"),
    seen.chosen ? choice("Show", Object.entries(modesOf(neuron, seen.simulators)), seen.mode, (mode) => redraw({ mode }), "mode") : null,
    seen.chosen && seen.mode !== "true" ? picker(seen, workspace, redraw) : null,
    choice("Length", [["", "Snippets"], ["1", "Full"]], seen.full ? "1" : "", (full) => redraw({ full, breaks: null }), "full"),
    element("label", {}, element("input", { type: "checkbox", checked: !seen.flat, "data-keep": "breaks", onchange: (event) => redraw({ breaks: event.target.checked ? "1" : "0" }) }), " line breaks"),
  );
}

function choice(label, options, current, pick, keep) {
  return element(
    "div",
    { class: "choice", role: "group", "aria-label": label },
    options.map(([value, text]) => element("button", { type: "button", "aria-pressed": value === current ? "true" : "false", "data-keep": `${keep}-${value}`, onclick: () => value === current || pick(value) }, text)),
  );
}

function picker({ simulators, chosen }, workspace, redraw) {
  const pick = (event) => {
    const { run, simulator } = simulators[event.target.selectedIndex];
    redraw({ run, simulator });
  };
  return element(
    "label",
    { class: "picker" },
    element("span", { class: "visually-hidden" }, "Predicted by"),
    element("select", { "data-keep": "simulator", onchange: pick }, simulators.map((one) => element("option", { selected: one.run === chosen.run && one.simulator === chosen.simulator }, `${runName(workspace, one.run)} · ${readable(one.simulator)}${one.null ? " (null)" : ""}`))),
  );
}

function legendOf(neuron, workspace, seen, scale) {
  const predicting = seen.mode !== "true" && !aboutSequences(neuron, seen.chosen);
  return legend({
    scale,
    mode: seen.mode,
    simulator: predicting ? readable(seen.chosen.simulator) : null,
    simulationScale: simulationScale(neuron.records, seen.chosen),
    undefinedOnes: predicting && neuron.records.some((record) => simulationOf(record, seen.chosen)?.activations.includes(null)),
    negative: neuron.records.some((record) => record.activations.some((value) => value < -0.02 * scale)),
    pairs: neuron.unit === "head",
  });
}

// 0 to 10 is what simulators of ours predict on; one of another scale gets its own largest value.
function simulationScale(records, chosen) {
  if (!chosen) return 10;
  return Math.max(10, ...records.flatMap((record) => simulationOf(record, chosen)?.activations ?? []));
}

function simulationOf(record, chosen) {
  return chosen ? record.simulations.find(({ run, simulator }) => run === chosen.run && simulator === chosen.simulator) : undefined;
}

function modesOf(neuron, simulators) {
  return simulators.every((one) => aboutSequences(neuron, one)) ? JUDGED : MODES;
}

function aboutSequences(neuron, chosen) {
  return neuron.explanations.find(({ run }) => run === chosen?.run)?.scores.find(({ simulator }) => simulator === chosen.simulator)?.predicts === "sequences";
}

// Records by kind, quantile bands from the highest to the lowest.
function groupsOf(records, { kind }) {
  const kinds = kind === "all" ? ["top", "random", "quantile"] : [kind];
  return kinds.flatMap((one) => {
    const some = records.filter((record) => record.kind === one);
    if (one !== "quantile") return some.length ? [{ title: kind === "all" ? KINDS[one] : null, records: some }] : [];
    const bands = [...new Set(some.map(({ band }) => band))].sort((a, b) => b - a);
    return bands.map((band) => ({ title: bandTitle(some, band), records: some.filter((record) => record.band === band) }));
  });
}

// Between which shares of all excerpts, by their maxima, a band lies.
function bandTitle(records, band) {
  const shares = [...Array(band + 1).keys()].map((at) => records.find((record) => record.band === at)?.share);
  const own = shares.at(-1);
  if (shares.some((share) => share === undefined || share === null)) return own ? `Band ${band + 1}: ${percent(own, 1)} of all excerpts` : `Band ${band + 1}`;
  const from = shares.slice(0, -1).reduce((sum, share) => sum + share, 0);
  const trim = (share) => Number((100 * share).toFixed(2));
  if (from + own > 0.99999) return `Highest ${trim(own)} % of excerpts`;
  return from ? `${trim(from)} to ${trim(from + own)} % of excerpts` : `Lowest ${trim(own)} % of excerpts`;
}

function groupOf({ title, records }, neuron, seen, scale) {
  const heading = title ? element("h3", {}, title) : null;
  const draw = (some) => element("ol", { class: "record-list" }, some.map((record) => item(record, neuron, seen, scale)));
  if (seen.mode === "true") return [heading, draw(records)];
  const predicted = records.filter((record) => simulationOf(record, seen.chosen));
  const others = records.filter((record) => !simulationOf(record, seen.chosen));
  const rest = () => [element("p", { class: "quiet note" }, "Held out from this simulator, or what the explainer saw (split train)."), draw(others)];
  return [
    heading,
    predicted.length ? draw(predicted) : element("p", { class: "quiet note" }, "None of these were simulated."),
    others.length ? fold(`rest-${others[0].kind}-${others[0].band ?? ""}`, `${others.length} without predictions`, rest) : null,
  ];
}

function item(record, neuron, seen, scale) {
  const found = seen.mode === "true" ? undefined : simulationOf(record, seen.chosen);
  const verdict = found && aboutSequences(neuron, seen.chosen);
  const simulation = found && !verdict ? { activations: found.activations, scale: simulationScale(neuron.records, seen.chosen) } : null;
  return element(
    "li",
    {},
    element("div", { class: "caption" }, caption(record, scale), found ? agreement(found, verdict) : null),
    element("div", { class: "body" }, record.pair ? pairArc(record, scale) : null, heat({ ...record, scale, simulation, mode: seen.mode, snippet: !seen.full })),
  );
}

function caption({ maximum, split, sequence, pair }, scale) {
  const digits = scale >= 1000 ? 0 : scale >= 100 ? 1 : scale >= 1 ? 2 : 3; // one column of figures
  return [
    element("span", { class: "strong", title: "maximum" }, figure(maximum, digits)),
    element("span", split ? { class: "tag", title: "split" } : {}, split ?? ""),
    element("span", { class: "quiet", title: "sequence of the corpus" }, `#${sequence}`),
    pair ? element("span", {}, `${pair[0] - pair[1]} back`) : null,
  ];
}

function agreement({ correlation, activations }, verdict) {
  if (verdict) {
    const said = activations.find((value) => value !== null);
    return element("span", { class: "agreement" }, said === undefined ? "no verdict" : `predicted ${short(said)} of 10`);
  }
  return element("span", { class: "agreement" }, correlation === null ? "r undefined" : `r = ${figure(correlation, 2)}`);
}
