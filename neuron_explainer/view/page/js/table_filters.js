// Which columns are shown, and within which limits: the panel, and the filters that are on.

import { element, show } from "./dom.js";
import { count, short } from "./text.js";

// `entries` are [{key, name, ranged}]; `shown` a Set of keys, `filters` a Map; `showing(keys)` and
// `limited(key, range)` are told of changes. Returns {node, update({shown, filters, open}, columns)}.
export function columnPanel({ entries, showing, limited, toggled }) {
  const rows = entries.map((entry) => entryRow(entry, limited));
  const choose = () => showing(rows.filter((row) => row.box.checked).map((row) => row.key));
  rows.forEach((row) => row.box.addEventListener("change", choose));
  const node = element(
    "details",
    { class: "columns" },
    element("summary", {}, "Columns and limits"),
    element(
      "div",
      { class: "wide", tabindex: "0", role: "region", "aria-label": "Columns and limits" },
      element(
        "table",
        {},
        element("thead", {}, element("tr", {}, ["Column", "At least", "At most", "Defined"].map((head) => element("th", { scope: "col" }, head)))),
        element("tbody", {}, rows.map((row) => row.node)),
      ),
    ),
  );
  node.addEventListener("toggle", () => toggled(node.open));
  return { node, update: (view, columns) => rows.forEach((row) => row.update(view, columns)) };
}

function entryRow({ key, name, ranged }, limited) {
  const box = element("input", { type: "checkbox", disabled: key === "neuron" });
  const ends = ranged ? ["at least", "at most"].map((end) => element("input", { type: "number", step: "any", "aria-label": `${name}, ${end}` })) : [];
  const known = element("td", { class: "number quiet" });
  const read = () => {
    const range = ends.map(({ value }) => (value === "" ? null : Number(value)));
    limited(key, range.every((end) => end === null) ? null : range);
  };
  ends.forEach((input) => input.addEventListener("change", read));
  const node = element("tr", {}, element("td", {}, element("label", {}, box, " ", element("bdi", {}, name))), ranged ? ends.map((input) => element("td", {}, input)) : element("td", { colspan: 2 }), known);
  const update = ({ shown, filters }, columns) => {
    box.checked = shown.has(key);
    ends.forEach((input, place) => document.activeElement !== input && (input.value = filters.get(key)?.[place] ?? ""));
    show(known, columns.broken.has(key) ? "cannot be read" : definedOf(columns.values(key)));
  };
  return { key, box, node, update };
}

function definedOf(values) {
  return values ? count(values.reduce((number, value) => number + !Number.isNaN(value), 0)) : "";
}

// A button for each filter that is on, which takes it off.
export function filterChips(filters, nameOf, removed) {
  return [...filters].map(([key, [low, high]]) => {
    const says = `${nameOf(key)} ${low === null ? "≤" : high === null ? "≥" : ""} ${[low, high].filter((end) => end !== null).map(short).join(" … ")}`;
    return element("button", { type: "button", class: "chip", "aria-label": `Remove the filter ${says}`, onclick: () => removed(key) }, element("bdi", {}, says), element("span", { "aria-hidden": "true" }, " ✕"));
  });
}
