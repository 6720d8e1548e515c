// What lies in the workspace: subjects, their sites and runs, how large and how good.

import { get, resource } from "../api.js";
import { element, show } from "../dom.js";
import { siteRows, siteTable } from "../home_sites.js";
import { endsOf, layerBars, layersLegend } from "../plots_layers.js";
import { link } from "../route.js";
import { layerName, siteAt } from "../sites.js";
import { count, metricName, readable } from "../text.js";

const TOGETHER = 4; // summaries asked for at a time

export function title(state, workspace) {
  const subject = workspace.subjects.find(({ key }) => key === state.subject);
  return subject ? readable(subject.name) : "Neurons";
}

export async function draw(main, { state, workspace, signal }) {
  const chosen = workspace.subjects.filter(({ key }) => !state.subject || key === state.subject);
  const subjects = chosen.length ? chosen : workspace.subjects;
  const parts = subjects.map((subject) => subjectPart(workspace, subject));
  show(
    main,
    parts.length ? element("h1", { class: "visually-hidden" }, title(state, workspace)) : empty(),
    problems(workspace),
    parts.map(({ node }) => node),
    subjects.length < workspace.subjects.length ? element("p", {}, element("a", { href: "?" }, "All subjects")) : null,
  );
  // What follows needs a resource a site: it comes after the first paint, from the first site to the last.
  for (const { fill } of parts) await fill(signal);
}

function empty() {
  return element(
    "section",
    { class: "empty" },
    element("h1", {}, "Nothing has been collected here yet"),
    element("p", {}, "Try the example, which needs no key and no network: run ", element("code", {}, "neuron-explainer run")),
    element("p", {}, "Or collect the activations of a model of your own: ", element("code", {}, "neuron-explainer collect --help")),
  );
}

function problems(workspace) {
  if (!workspace.problems.length) return null;
  return element(
    "section",
    { class: "problem", "aria-label": "Problems" },
    element("h2", {}, workspace.problems.length === 1 ? "One thing needs attention" : `${workspace.problems.length} things need attention`),
    element(
      "ul",
      {},
      workspace.problems.map(({ what, run }) =>
        element("li", {}, element("bdi", {}, readable(what)), run ? [". Run ", element("code", {}, readable(run))] : null),
      ),
    ),
  );
}

function subjectPart(workspace, subject) {
  const sites = subject.sites.map((key) => siteAt(workspace, key)).filter(Boolean);
  const runs = Object.values(workspace.runs).filter((run) => run.subject === subject.key);
  const figures = runs.filter((run) => run.main).flatMap((run) => families(sites, run));
  const rows = sites.map((site) => siteRows(workspace, site));
  const total = sites.reduce((sum, site) => sum + site.neurons, 0);
  const node = element(
    "section",
    { class: "subject" },
    element("h2", {}, element("a", { href: link({ subject: subject.key }) }, element("bdi", {}, readable(subject.name)))),
    element("p", { class: "quiet" }, `${count(total)} collected in ${count(sites.length)} ${sites.length === 1 ? "site" : "sites"}, ${runs.length ? count(runs.length) : "no"} ${runs.length === 1 ? "run" : "runs"}`),
    figures.length ? element("div", { class: "figures" }, figures.map((made) => made.node), layersLegend()) : null,
    element("h3", {}, "Sites"),
    siteTable(rows),
    runs.length ? [element("h3", {}, "Runs"), runTable(workspace, runs)] : notExplained(),
  );
  return { node, fill: (signal) => fillSubject(sites, rows, figures, node, signal) };
}

function notExplained() {
  return element("p", {}, "No run explains these neurons yet. Run ", element("code", {}, "neuron-explainer explain --layer N"));
}

async function fillSubject(sites, rows, figures, node, signal) {
  const failures = new Map();
  const redraw = () => {
    const ends = endsOf(figures.flatMap((made) => made.entries()));
    figures.forEach((made) => made.draw(ends));
  };
  redraw();
  const watched = new ResizeObserver(redraw);
  watched.observe(node);
  signal.addEventListener("abort", () => watched.disconnect());
  const fetchOne = async (site, place) => {
    try {
      const summary = await get(resource(site.key, "summary"), { signal });
      rows[place].fill(summary);
      figures.forEach((made) => made.add(site, summary));
      summary.failures.forEach((failure) => addFailure(failures, failure));
    } catch (error) {
      if (!signal.aborted) rows[place].broken(error);
    }
  };
  for (let first = 0; first < sites.length && !signal.aborted; first += TOGETHER) {
    await Promise.all(sites.slice(first, first + TOGETHER).map((site, offset) => fetchOne(site, first + offset)));
    redraw();
  }
  for (const [run, causes] of failures) {
    const cell = [...node.querySelectorAll("[data-failures]")].find(({ dataset }) => dataset.failures === run);
    if (cell) show(cell, [...causes].map(([cause, number]) => `${readable(cause)} (${count(number)})`).join(", "));
  }
}

function addFailure(failures, { run, cause, neurons }) {
  const known = failures.get(run) ?? new Map();
  failures.set(run, known.set(cause, (known.get(cause) ?? 0) + neurons));
}

// One figure a run and kind of unit, so that a layer has one bar in it.
function families(sites, run) {
  const kinds = new Map();
  for (const site of sites.filter(({ key }) => run.sites.includes(key))) {
    const kind = site.name.replace(/^blocks\.\d+\./, "");
    kinds.set(kind, [...(kinds.get(kind) ?? []), site]);
  }
  return [...kinds].filter(([, members]) => members.length > 1).map(([kind, members]) => layersFigure(run, kind, members));
}

function layersFigure(run, kind, members) {
  const known = new Map();
  const place = element("div", { class: "wide" });
  const name = `${readable(run.name)}: ${metricName(run.main.metric)} by layer of ${readable(kind)}`;
  const node = element(
    "figure",
    { class: "by-layer" },
    element("figcaption", {}, element("b", {}, element("bdi", {}, readable(run.name))), " ", element("span", { class: "quiet" }, `${metricName(run.main.metric)}, by layer of ${readable(kind)}`)),
    place,
  );
  const entries = () => members.map((site) => layerEntry(site, run, known.get(site.key)));
  const draw = (ends) => show(place, layerBars({ says: name, width: Math.max(280, place.clientWidth), entries: entries(), ends }));
  const add = (site, summary) => known.set(site.key, summary.scores.find((line) => line.run === run.key && line.simulator === run.main.simulator));
  return { node, entries, draw, add };
}

function layerEntry(site, run, line) {
  return {
    label: String(site.layer ?? "?"),
    name: `${layerName(site)}, ${readable(site.name)}`,
    href: link({ page: "layer", site: site.key, run: run.key }),
    mean: line?.mean ?? null,
    interval: line?.interval ?? null,
    random: line?.random_only?.mean ?? null,
  };
}

function runTable(workspace, runs) {
  const heads = ["Run", "Explainer", "Language model", "Simulators", "Sites", "State", "Failures", "Beside another"];
  return element(
    "div",
    { class: "wide", tabindex: "0", role: "region", "aria-label": "Runs" },
    element(
      "table",
      { class: "runs" },
      element("thead", {}, element("tr", {}, heads.map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, runs.map((run) => runRow(workspace, run, runs))),
    ),
  );
}

function runRow(workspace, run, runs) {
  const other = runs.find(({ key, sites }) => key !== run.key && sites.some((site) => run.sites.includes(site)));
  const simulators = run.simulators.map((simulator) => `${readable(simulator.name)}${simulator.null ? " (null)" : ""}`);
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, element("bdi", {}, readable(run.name))),
    element("td", {}, readable(run.explainer)),
    element("td", {}, run.model ? element("bdi", {}, readable(run.model)) : element("span", { class: "quiet" }, "none")),
    element("td", {}, simulators.length ? simulators.join(", ") : ["none: run ", element("code", {}, `neuron-explainer simulate ${readable(run.name)}`)]),
    element("td", { class: "number" }, count(run.sites.length)),
    element("td", {}, run.complete ? "complete" : element("span", { class: "bad" }, "not complete")),
    element("td", { "data-failures": run.key }, "–"),
    element("td", {}, other ? element("a", { href: link({ page: "compare", a: run.key, b: other.key }) }, "compare") : null),
  );
}
