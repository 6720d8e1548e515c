// One neuron: what is said of it, how well that predicts it, and the records to judge by.

import { get, neuronResource, Unavailable } from "../api.js";
import { problem } from "../app.js";
import { element, show } from "../dom.js";
import { fold } from "../fold.js";
import { pairTriangle } from "../heat_pairs.js";
import { explanationsOf } from "../neuron_explanations.js";
import { headOf, statisticsOf, toNeighbour } from "../neuron_head.js";
import { histogramOf, histogramTable } from "../neuron_histogram.js";
import { recordsOf, scaleOf, view } from "../neuron_records.js";
import { inputTokens, nearestOf, outputTokens, tokenTable } from "../neuron_tokens.js";
import { key } from "../keys.js";
import { change, link, state } from "../route.js";
import { siteAt } from "../sites.js";
import { readable } from "../text.js";

export function title(asked, workspace) {
  const site = siteAt(workspace, asked.site);
  return site ? `${readable(site.subject)}/${readable(site.name)}/${asked.neuron}` : "Neuron";
}

export async function draw(main, { state: asked, workspace, signal }) {
  const kept = document.activeElement?.dataset.keep;
  let neuron;
  try {
    neuron = await fetched(asked, workspace);
  } catch (error) {
    if (!(error instanceof Unavailable) || signal.aborted) throw error;
    return show(main, problem(error), wayOut(asked, workspace));
  }
  if (signal.aborted) return;
  show(main, page(neuron, workspace));
  if (kept) main.querySelector(`[data-keep="${CSS.escape(kept)}"]`)?.focus();
  keys(neuron, signal);
  prefetch(neuron);
}

async function fetched({ site, neuron }, workspace) {
  if (!siteAt(workspace, site)) throw new Unavailable(site ? `There is no site ${readable(site)} in this workspace.` : "The address names no site.", null, 404);
  if (!/^\d{1,9}$/.test(neuron ?? "")) throw new Unavailable(`“${readable(neuron ?? "")}” is no neuron: its number in the site is needed, such as 3.`, null, 404);
  try {
    return await get(neuronResource(site, Number(neuron)));
  } catch (error) {
    if (error.status !== 404 || error.run || workspace.mode !== "static") throw error;
    const { name, neurons, width } = siteAt(workspace, site); // a file server has no words for it
    throw new Unavailable(`${readable(name)} has no neuron ${neuron} here: ${neurons} of its ${width} were collected.`, null, 404);
  }
}

function wayOut({ site }, workspace) {
  const known = siteAt(workspace, site);
  return element("p", {}, element("a", { href: known ? link({ page: "layer", site }) : "?" }, known ? "All neurons of this site" : "All sites"));
}

function page(neuron, workspace) {
  return element(
    "div",
    { class: `neuron ${neuron.unit}` },
    headOf(neuron, workspace),
    element("div", { class: "said-and-seen" }, explanationsOf(neuron, workspace, view(neuron).mode === "true" ? null : view(neuron).chosen), recordsOf(neuron, workspace)),
    element("aside", { "aria-label": "Statistics and tokens" }, activity(neuron), pairs(neuron), tokenTable(neuron), outputTokens(neuron), inputTokens(neuron), nearestOf(neuron)),
  );
}

function activity(neuron) {
  const what = neuron.unit === "head" ? "pairs" : "tokens";
  return element("section", {}, element("h2", {}, "Activity"), neuron.histogram ? histogram(neuron.histogram, what) : null, statisticsOf(neuron), neuron.histogram ? fold("histogram", "The histogram in figures", () => histogramTable(neuron.histogram, what)) : null);
}

function histogram(bins, what) {
  const holder = element("div", {});
  const fill = () => show(holder, histogramOf(bins, { logarithmic: state().counts !== "linear", what }));
  const pick = (event) => {
    change({ counts: event.target.checked ? null : "linear" });
    fill();
  };
  fill();
  return element("figure", {}, holder, element("figcaption", { class: "quiet" }, element("label", {}, element("input", { type: "checkbox", checked: state().counts !== "linear", "data-keep": "counts", onchange: pick }), ` logarithmic number of ${what}`)));
}

function pairs(neuron) {
  if (!neuron.records.some((record) => record.pair)) return null;
  return element("section", {}, element("h2", {}, "Where it looks"), element("figure", {}, pairTriangle(neuron.records, scaleOf(neuron.records)), element("figcaption", { class: "quiet" }, "Filled: top pairs, rings: random ones; the larger, the stronger.")));
}

// Stepping through neurons keeps the place on the page, so that one can compare what is there.
function keys({ previous, next }, signal) {
  const step = (index) => () => {
    if (index === null) return;
    history.replaceState({ ...history.state, scroll: scrollY }, "");
    history.pushState({ scroll: scrollY }, "", toNeighbour(index));
    dispatchEvent(new Event("route"));
  };
  for (const name of ["j", "ArrowRight"]) key(signal, name, "The next neuron", step(next));
  for (const name of ["k", "ArrowLeft"]) key(signal, name, "The neuron before", step(previous));
}

function prefetch(neuron) {
  const later = globalThis.requestIdleCallback ?? ((run) => setTimeout(run, 50));
  later(() => {
    for (const index of [neuron.next, neuron.previous]) if (index !== null) get(neuronResource(neuron.site, index)).catch(() => {});
  });
}
