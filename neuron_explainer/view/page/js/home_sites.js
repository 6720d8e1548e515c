// The table of a subject's sites: what was collected, and a line of scores for each run.

import { element, show } from "./dom.js";
import { histogram } from "./plots.js";
import { link } from "./route.js";
import { layerName, runsOf, units } from "./sites.js";
import { count, figure, interval, metricName, percent, readable } from "./text.js";

const HEADS = ["Site", "Collected", "Run", "Mean score", "95 % interval", "Random only", "Best null", "Undefined", "Scores"];

export function siteTable(rows) {
  return element(
    "div",
    { class: "wide", tabindex: "0", role: "region", "aria-label": "Sites" },
    element(
      "table",
      { class: "sites" },
      element("thead", {}, element("tr", {}, HEADS.map((head) => element("th", { scope: "col", class: /^(Mean|Random|Best|Undefined|Collected)/.test(head) ? "number" : null }, head)))),
      rows.map(({ node }) => node),
    ),
  );
}

export function siteRows(workspace, site) {
  const runs = runsOf(workspace, site);
  const node = element("tbody");
  const layout = (lines) => show(node, lines.map((cells, place) => element("tr", {}, place ? null : siteCells(site, lines.length), cells)));
  const waiting = (word) => layout(runs.length ? runs.map((run) => [runCell(site, run), element("td", { colspan: HEADS.length - 3, class: "quiet" }, run.main ? word : "not scored")]) : [[element("td", { colspan: HEADS.length - 2, class: "quiet" }, "not explained")]]);
  waiting("…");
  const fill = (summary) => runs.length && layout(runs.map((run) => scoreCells(site, run, summary)));
  const broken = (error) => layout([[element("td", { colspan: HEADS.length - 2, class: "bad" }, readable(error.message), error.run ? [". Run ", element("code", {}, readable(error.run))] : null)]]);
  return { node, fill, broken };
}

function siteCells(site, lines) {
  const of = site.neurons === site.width ? "" : ` of ${count(site.width)}`;
  return [
    element(
      "th",
      { scope: "rowgroup", rowspan: lines },
      element("a", { href: link({ page: "layer", site: site.key }) }, layerName(site), " ", element("bdi", { class: "mono" }, readable(site.name))),
    ),
    element("td", { rowspan: lines, class: "number" }, `${count(site.neurons)}${of} ${units(site, site.neurons)}`, element("span", site.complete ? { class: "quiet" } : { class: "bad" }, site.complete ? `, ${count(site.excerpts)} excerpts` : ", not complete")),
  ];
}

function runCell(site, run) {
  return element("td", { class: "run" }, element("a", { href: link({ page: "layer", site: site.key, run: run.key }) }, element("bdi", {}, readable(run.name))));
}

function scoreCells(site, run, summary) {
  const lines = summary.scores.filter((line) => line.run === run.key);
  const line = lines.find(({ simulator }) => simulator === run.main?.simulator);
  if (!line) return [runCell(site, run), element("td", { colspan: HEADS.length - 3, class: "quiet" }, "not scored: run ", element("code", {}, `neuron-explainer score ${readable(run.name)}`))];
  const nulls = lines.filter((other) => other.null && other.mean !== null).sort((a, b) => b.mean - a.mean);
  const why = Object.entries(line.reasons ?? {}).map(([reason, neurons]) => `${readable(reason)}: ${count(neurons)}`).join("; ");
  return [
    runCell(site, run),
    element("td", { class: "number strong", title: `${metricName(line.metric)}, ${readable(line.simulator)}, n = ${count(line.n)}` }, figure(line.mean)),
    element("td", { class: "quiet" }, interval(line.interval)),
    element("td", { class: "number" }, figure(line.random_only?.mean)),
    element("td", { class: "number", title: nulls[0] ? readable(nulls[0].simulator) : null }, figure(nulls[0]?.mean)),
    element("td", { class: "number", title: why || null }, percent(line.undefined, 1)),
    element("td", {}, line.histogram ? histogram({ ...line.histogram, mean: line.mean, label: `${readable(run.name)}, ${layerName(site)}` }) : null),
  ];
}
