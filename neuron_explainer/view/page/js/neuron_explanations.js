// What the runs say about a neuron, each with its scores, and what to run where something is missing.

import { element } from "./dom.js";
import { fold, scrolling } from "./fold.js";
import { tokenNodes } from "./heat_tokens.js";
import { allScores, axisOf, scoresOf } from "./neuron_scores.js";
import { runAt, runName, siteAt } from "./sites.js";
import { count, figure, percent, readable } from "./text.js";

const CUT = 700; // characters of an explanation that are shown before one asks for the rest

export function explanationsOf(neuron, workspace, chosen) {
  const axis = axisOf(neuron.explanations);
  const missing = (siteAt(workspace, neuron.site)?.runs ?? []).filter((key) => !neuron.explanations.some(({ run }) => run === key));
  return element(
    "section",
    { class: "explanations", "aria-labelledby": "explanations" },
    element("h2", { id: "explanations" }, "Explanations"),
    neuron.explanations.length ? null : unexplained(neuron),
    neuron.explanations.map((explanation) => card(explanation, neuron, workspace, axis, chosen)),
    missing.length ? element("p", { class: "quiet" }, "Without an explanation of it: ", list(missing.map((key) => runName(workspace, key)))) : null,
  );
}

function list(names) {
  return names.map((text, at) => [at ? ", " : "", element("bdi", {}, text)]);
}

function unexplained({ subject, name: site, neuron, unit }) {
  const explainer = unit === "head" ? "pair-lookup" : "token-lookup";
  return missingPart("No run explains it.", `neuron-explainer explain --subject ${subject} --site ${site} --neurons ${neuron} --explainer ${explainer} --run NAME`);
}

// What is not there, and the command that makes it.
export function missingPart(what, command) {
  return element("p", { class: "missing" }, what, " ", command ? ["Run ", element("code", {}, readable(command))] : null);
}

function card(explanation, neuron, workspace, axis, chosen) {
  const { run, explainer, model, failure } = explanation;
  const about = runAt(workspace, run);
  return element(
    "article",
    { class: `explanation${chosen?.run === run ? " chosen" : ""}` },
    element("h3", {}, element("bdi", {}, runName(workspace, run)), element("span", { class: "quiet" }, " ", readable(explainer), model ? [" · ", element("bdi", {}, readable(model))] : null, about?.complete === false ? " · not finished" : null)),
    failure ? failed(failure) : statement(explanation, workspace),
    failure || explanation.text === null ? null : judged(explanation, neuron, workspace, axis, chosen),
    element(
      "div",
      { class: "folds" },
      explanation.table ? fold(`table-${run}`, `Its table of ${count(explanation.table_rows ?? explanation.table.length)} tokens`, () => lookup(explanation, neuron.unit)) : null,
      explanation.scores.some(({ values }) => Object.keys(values).length > 2) ? fold(`scores-${run}`, "All scores", () => allScores(explanation.scores)) : null,
    ),
  );
}

function failed({ stage, cause, message }) {
  return element("p", { class: "failed" }, `${readable(stage)} failed: ${readable(cause)}`, message ? element("span", { class: "quiet" }, ` – ${readable(message).slice(0, 1000)}`) : null);
}

function statement({ run, text }, workspace) {
  if (text === null) return missingPart(runAt(workspace, run)?.complete === false ? "This run has not come to it yet." : "This run has no explanation of it.", null);
  const shown = readable(text);
  if (shown.length <= CUT) return element("p", { class: "statement", dir: "auto" }, shown || element("span", { class: "quiet" }, "an empty explanation"));
  return [
    element("p", { class: "statement", dir: "auto" }, `${shown.slice(0, CUT)}…`),
    fold(`text-${run}`, `All ${count(shown.length)} characters`, () => element("p", { class: "statement long", dir: "auto", tabindex: 0 }, shown)),
  ];
}

function judged({ run, scores }, neuron, workspace, axis, chosen) {
  const of = runAt(workspace, run)?.name ?? run;
  const simulator = neuron.unit === "head" ? "pair-lookup" : "token-lookup";
  if (!scores.length) return missingPart("Not simulated.", `neuron-explainer simulate ${of} --simulator ${simulator}`);
  return [
    scrolling(`Scores of ${readable(of)}`, scoresOf(scores, axis, chosen?.run === run ? chosen.simulator : null)),
    scores.every(({ values, failure }) => !failure && !Object.keys(values).length) ? missingPart("Simulated, but not scored.", `neuron-explainer score ${of}`) : null,
  ];
}

function lookup({ table, table_rows: rows, otherwise }, unit) {
  const most = Math.max(1e-9, ...table.map(({ activation }) => Math.abs(activation)));
  const [before, at] = unit === "head" ? ["key", "query"] : ["after", "token"];
  const withBefore = table.some(({ previous }) => previous !== null);
  return [
    scrolling("Table of tokens", element("table", { class: "token-table" },
      element("thead", {}, element("tr", {}, withBefore ? element("th", { scope: "col" }, before) : null, element("th", { scope: "col" }, at), element("th", { scope: "col", colspan: 2 }, "predicted, 0 to 10"), element("th", { scope: "col", class: "number" }, "share"))),
      element("tbody", {}, table.map((row) => element("tr", {}, withBefore ? element("td", {}, row.previous === null ? element("span", { class: "quiet" }, "any") : token(row.previous)) : null, element("td", {}, token(row.token)), levelCells(row.activation, most, 1), element("td", { class: "number quiet" }, percent(row.share, 1))))))),
    element("p", { class: "quiet" }, rows > table.length ? `The ${table.length} highest. ` : "", `All other tokens: ${figure(otherwise, 2)}. Share: of the neuron's positive activation in the corpus.`),
  ];
}

// A token in a list or table, where its spaces are always marked.
export function token(text) {
  const short = text.length <= 11 && !/[\\\p{C}]/u.test(text); // need not break
  return element("bdi", { class: short ? "token short" : "token" }, text === "" ? element("span", { class: "quiet" }, "empty") : tokenNodes(text, 80));
}

// A figure and its bar, as two cells.
export function levelCells(value, most, digits = 2) {
  return [
    element("td", { class: "number" }, figure(value, digits)),
    element("td", { class: "level" }, element("span", { class: value < 0 ? "low" : "high", style: { width: `${((100 * Math.abs(value ?? 0)) / most).toFixed(1)}%` } })),
  ];
}
