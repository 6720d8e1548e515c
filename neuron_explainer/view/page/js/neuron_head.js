// The head of a neuron's page: which it is, its neighbours, what can be done with it.

import { announce, element } from "./dom.js";
import { link, state } from "./route.js";
import { siteAt } from "./sites.js";
import { count, percent, readable, short } from "./text.js";

const UNITS = { neuron: "Neuron", direction: "Direction", latent: "Latent", head: "Attention head" };

export function headOf(neuron, workspace) {
  const site = siteAt(workspace, neuron.site);
  return element(
    "header",
    { class: "neuron-head" },
    element("h1", {}, `${UNITS[neuron.unit] ?? "Unit"} ${neuron.neuron}`, element("span", { class: "quiet of" }, site?.width ? ` of ${count(site.width)} in ` : " of ", element("bdi", { class: "mono" }, `${readable(neuron.subject)}/${readable(neuron.name)}`))),
    neighbours(neuron),
    actions(neuron, workspace),
  );
}

export function toNeighbour(index) {
  return link({ ...state(), page: "neuron", neuron: index, open: null });
}

function neighbours({ previous, next }) {
  const way = (index, name, sign, key) =>
    index === null
      ? element("span", { class: "button off", "aria-disabled": "true" }, sign)
      : element("a", { class: "button", href: toNeighbour(index), rel: name === "Previous" ? "prev" : "next", "data-keep": name, "aria-label": `${name} neuron, ${index}`, title: `${name}: ${index} (key ${key})` }, name === "Previous" ? `${sign} ${index}` : `${index} ${sign}`);
  return element("nav", { class: "neighbours", "aria-label": "Neighbours" }, way(previous, "Previous", "←", "k or ←"), way(next, "Next", "→", "j or →"));
}

function actions(neuron, workspace) {
  const { site, neuron: index } = neuron;
  return element(
    "div",
    { class: "actions" },
    element("button", { type: "button", "data-keep": "copy-id", onclick: () => copy(neuron.id, "The id") }, "Copy id"),
    element("button", { type: "button", "data-keep": "copy-json", onclick: () => copy(JSON.stringify(neuron, null, 1), "The neuron's JSON") }, "Copy as JSON"),
    workspace.live.try ? element("a", { href: link({ page: "try", site, neuron: index, run: state().run }) }, "Try it on a text") : null,
    neuron.explanations.length > 1 ? element("a", { href: link({ page: "compare", site, neuron: index }) }, "Compare its runs") : null,
    neuron.neuronpedia?.startsWith("https://") ? element("a", { href: neuron.neuronpedia, rel: "noopener noreferrer", target: "_blank" }, "Neuronpedia ↗") : null,
  );
}

async function copy(text, what) {
  const done = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  announce(done || copyByHand(text) ? `${what} was copied.` : `${what} could not be copied.`);
  const button = document.activeElement;
  if (!button?.dataset.keep?.startsWith("copy")) return;
  button.classList.add("done");
  button.addEventListener("blur", () => button.classList.remove("done"), { once: true });
}

// For pages that are not served by a secure or a local address, which have no clipboard.
function copyByHand(text) {
  const before = document.activeElement;
  const field = element("textarea", { class: "visually-hidden", "aria-hidden": "true" });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus();
  return done;
}

const MOMENTS = ["mean", "variance", "skewness", "kurtosis"];

// Figures over the corpus, as a list of terms.
export function statisticsOf({ statistics, unit }) {
  if (!statistics) return element("p", { class: "quiet" }, "No statistics were published with these records.");
  const { tokens, density, maximum } = statistics;
  const what = unit === "head" ? "pairs" : "tokens";
  const terms = [
    [`share of ${what} above 0`, density !== null && density < 0.001 && density > 0 ? `${(100 * density).toPrecision(2)} %` : percent(density, 1)],
    ["maximum", short(maximum)],
    ...MOMENTS.map((name) => [name, short(statistics[name])]),
    [what, tokens ? count(tokens) : "–"],
  ];
  return element("dl", { class: "figures" }, terms.map(([term, figure]) => element("div", {}, element("dt", {}, term), element("dd", {}, figure))));
}
