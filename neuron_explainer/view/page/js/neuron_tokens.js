// Lists beside a neuron's records: tokens that it promotes, that drive it, and its nearest neurons.

import { element } from "./dom.js";
import { fold } from "./fold.js";
import { levelCells, token } from "./neuron_explanations.js";
import { link, state } from "./route.js";
import { count, figure, readable } from "./text.js";

function part(title, ...content) {
  return element("section", {}, element("h2", {}, title), content);
}

// Two lists of tokens with effects, on one scale.
function effects(title, note, first, second, names) {
  if (!first && !second) return null;
  const most = Math.max(1e-9, ...[...(first ?? []), ...(second ?? [])].map(({ effect }) => Math.abs(effect)));
  const table = (rows, name) =>
    element("table", { class: "token-table" }, element("caption", {}, name),
      element("tbody", {}, rows?.length ? rows.map(({ token: text, effect }) => element("tr", {}, element("td", {}, token(text)), levelCells(effect, most))) : element("tr", {}, element("td", { class: "quiet" }, "none"))));
  return part(title, element("div", { class: "pair-of-lists" }, table(first, names[0]), table(second, names[1])), note ? element("p", { class: "quiet note" }, note) : null);
}

export function outputTokens({ promoted, suppressed }) {
  return (
    effects("Tokens it writes", "On the logit, for an activation of 1.", promoted, suppressed, ["promotes", "suppresses"]) ??
    part("Tokens it writes", element("p", { class: "quiet" }, "Not known: collect keeps what a unit promotes where the model can tell."))
  );
}

export function inputTokens({ excites, inhibits }) {
  return effects("Tokens it reads", null, excites, inhibits, ["excite it", "inhibit it"]);
}

const FIRST = 8;

export function tokenTable({ token_table: rows, unit }) {
  if (!rows) return unit === "head" ? null : part("Mean activation by token", element("p", { class: "quiet" }, "Not known: imported records have no token table."));
  const most = Math.max(1e-9, ...rows.map(({ activation }) => Math.abs(activation)));
  const table = (some) =>
    element("table", { class: "token-table" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "token"), element("th", { scope: "col", colspan: 2 }, "mean"), element("th", { scope: "col", class: "number" }, "times"))),
      element("tbody", {}, some.map((row) => element("tr", {}, element("td", {}, row.previous === null ? null : [element("span", { class: "quiet" }, token(row.previous)), " "], row.token === null ? element("span", { class: "quiet" }, "all rarer") : token(row.token)), levelCells(row.activation, most), element("td", { class: "number quiet" }, count(row.count))))));
  return part("Mean activation by token", table(rows.slice(0, FIRST)), rows.length > FIRST ? fold("tokens", `All ${rows.length}`, () => table(rows)) : null);
}

export function nearestOf({ nearest, unit }) {
  if (!nearest) return unit === "head" ? null : part("Nearest", element("p", { class: "quiet" }, "Not known for this site."));
  if (!nearest.length) return part("Nearest", element("p", { class: "quiet" }, "No other was collected."));
  const sides = [["output", "By the cosine of what they write."], ["input", "By the cosine of what they read."]];
  return part("Nearest", sides.map(([side, said]) => alike(nearest.filter(({ direction }) => (direction ?? "output") === side), said)));
}

function alike(neurons, said) {
  if (!neurons.length) return null;
  return [
    element("ol", { class: "nearest" }, neurons.map(({ neuron, cosine, explanation }) =>
      element("li", {},
        element("a", { href: link({ ...state(), neuron, open: null }) }, String(neuron)),
        element("span", { class: "number quiet" }, figure(cosine, 2)),
        element("span", { class: "said", dir: "auto" }, explanation ? readable(explanation) : element("span", { class: "quiet" }, "no explanation")),
      ))),
    element("p", { class: "quiet note" }, said),
  ];
}

