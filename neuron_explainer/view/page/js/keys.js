// Shortcuts of one key, and the dialog that lists them.

import { element, show } from "./dom.js";

const known = new Map();

// `handler(event)` runs when `name` (a KeyboardEvent.key, such as "j") is pressed outside fields, for as
// long as `signal` is not aborted. `what` says what it does, in the dialog that "?" opens.
export function key(signal, name, what, handler) {
  const entry = { name, what, handler };
  known.set(name, entry);
  signal?.addEventListener("abort", () => known.get(name) === entry && known.delete(name));
}

function typing(target) {
  return target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName);
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || typing(event.target)) return;
  if (document.querySelector("dialog[open]")) return;
  const entry = known.get(event.key);
  if (!entry) return;
  event.preventDefault();
  entry.handler(event);
});

const IN_TABLES = [
  ["↑ ↓", "In a table: the row above or below"],
  ["Page ↑ ↓", "In a table: a screen up or down"],
  ["Home End", "In a table: the first or last row"],
  ["Enter", "In a table: open the row"],
  ["← →", "On the edge of a selection in a plot: move it; with Shift by more"],
];

// The dialog that lists what is known now. It is modal, and Escape closes it.
export function help() {
  const dialog = element("dialog", { class: "keys", "aria-labelledby": "keys-title" });
  const entries = [...[...known.values()].map((entry) => [entry.name, entry.what]), ...IN_TABLES];
  show(
    dialog,
    element("h2", { id: "keys-title" }, "Keys"),
    element("dl", {}, entries.map(([name, what]) => [element("dt", {}, element("kbd", {}, name)), element("dd", {}, what)])),
    element("button", { type: "button", onclick: () => dialog.close() }, "Close"),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
