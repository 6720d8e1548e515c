// What the pages that compute something share: which neuron is meant, waiting, and what went wrong.

import { Unavailable } from "./api.js";
import { element, show } from "./dom.js";
import { go } from "./route.js";
import { layerName, siteAt } from "./sites.js";
import { readable } from "./text.js";

export const LONGEST_IN_URL = 1500; // characters of typed text that an address holds

// {site, neuron} of the URL, the first of the workspace by default. Throws Unavailable.
export function askedNeuron(asked, workspace) {
  const sites = Object.values(workspace.sites);
  if (!sites.length) throw new Unavailable("This workspace holds no records yet.", "neuron-explainer run", 404);
  const site = asked.site === undefined ? sites[0] : siteAt(workspace, asked.site);
  if (!site) throw new Unavailable(`There is no site ${readable(asked.site)} in this workspace.`, null, 404);
  if (!/^\d{1,9}$/.test(asked.neuron ?? "0")) throw new Unavailable(`“${readable(asked.neuron)}” is no neuron: its number in the site is needed, such as 3.`, null, 404);
  return { site, neuron: Number(asked.neuron ?? 0) };
}

export function siteName(site) {
  return `${layerName(site)} · ${readable(site.name)}`;
}

// Which neuron is tried, to choose another.
export function chooseNeuron(workspace, site, neuron) {
  const number = element("input", { type: "number", min: 0, max: site.width - 1, value: neuron, "aria-label": "Neuron" });
  const sites = Object.values(workspace.sites);
  const choose = (key, index) => go({ page: "try", site: key, neuron: index });
  number.addEventListener("change", () => number.validity.valid && number.value !== "" && choose(site.key, Number(number.value)));
  return element(
    "div",
    { class: "selects" },
    labelled("Site", select(sites.map((one) => [one.key, siteName(one)]), site.key, (key) => choose(key, 0))),
    labelled(site.unit[0].toUpperCase() + site.unit.slice(1), number),
  );
}

export function labelled(label, field) {
  return element("label", {}, element("span", {}, label), field);
}

export function select(options, current, changed, attributes = {}) {
  const made = element("select", attributes, options.map(([value, text]) => element("option", { value, selected: value === current }, text)));
  made.addEventListener("change", () => changed(made.value));
  return made;
}

// A line that says what is going on, in words; `trouble` shows what went wrong and what mends it.
export function statusLine() {
  const node = element("div", { class: "live-status", role: "status" });
  return {
    node,
    say: (...parts) => show(node, element("p", { class: "quiet" }, parts)),
    trouble: (error) => show(node, trouble(error)),
    clear: () => show(node),
  };
}

export function trouble(error) {
  const known = error instanceof Unavailable;
  return element(
    "p",
    { class: "missing" },
    readable(known ? error.message : `Something broke: ${error.message}`),
    error.run ? [" Run ", element("code", {}, readable(error.run))] : null,
  );
}

// What a line says that is no result yet, or null.
export function waitingFor(line) {
  if (line.waiting) return line.waiting === 1 ? "One request is before this one…" : `${line.waiting} requests are before this one…`;
  return line.loading ? `Loading the model of ${readable(line.loading)}…` : null;
}

// `work(signal)` some time after the last call; what an earlier call began is aborted at once.
export function debounced(work, milliseconds, signal) {
  let timer = 0;
  let running = new AbortController();
  signal.addEventListener("abort", () => (clearTimeout(timer), running.abort()));
  return (delay = milliseconds) => {
    clearTimeout(timer);
    running.abort();
    running = new AbortController();
    const mine = running.signal;
    timer = setTimeout(() => work(mine), delay);
  };
}
