// Typed text, and what the neuron does on it: window by window, as it is typed.

import { lines } from "./api.js";
import { element, show } from "./dom.js";
import { heat, strongest } from "./heat.js";
import { legend } from "./heat_legend.js";
import { named } from "./heat_tokens.js";
import { debounced, LONGEST_IN_URL, statusLine, trouble, waitingFor } from "./live_parts.js";
import { change } from "./route.js";
import { count, short } from "./text.js";

const PAUSE = 250; // milliseconds after the last key

export function textSection(page) {
  const { site, unable, limits } = page;
  const input = element("textarea", { id: "typed", rows: 4, maxlength: limits.text, spellcheck: "false", dir: "auto", "aria-describedby": "typed-status", "data-keep": "typed" });
  input.value = page.asked.text ?? "";
  const shown = element("div", { class: "windows flat" });
  const status = statusLine();
  status.node.id = "typed-status";
  const run = debounced((signal) => read({ ...page, input, shown, status, signal }), PAUSE, page.signal);
  input.addEventListener("input", () => run());
  if (input.value) run(0);
  const fill = (text) => {
    input.value = text;
    run(0);
  };
  return element(
    "section",
    { class: "typing", "aria-labelledby": "typing" },
    element("h2", { id: "typing" }, "A text"),
    unable ? trouble(unable) : [
      element("label", { class: "visually-hidden", for: "typed" }, `Text that the ${site.unit} reads`),
      input,
      starts(page.about, fill),
      status.node,
      shown,
    ],
  );
}

// Texts to begin with: what the neuron was collected on.
function starts({ records }, fill) {
  const texts = [["its strongest record", "top"], ["a random record", "random"]]
    .map(([name, kind]) => [name, records.find((record) => record.kind === kind && textOf(record))])
    .filter(([, record]) => record);
  if (!texts.length) return null;
  return element("p", { class: "starts quiet" }, "Start from ", texts.map(([name, record], at) => [at ? " or " : "", element("button", { type: "button", onclick: () => fill(textOf(record)) }, name)]));
}

// The text of a record, or null where its bytes are no UTF-8.
export function textOf({ tokens, unscored }) {
  const text = tokens.filter((_, place) => !unscored.includes(place)).join("");
  return /\\x[0-9a-f]{2}/.test(text.replaceAll("\\\\", "")) ? null : text.replaceAll("\\\\", "\\");
}

async function read(page) {
  const { input, shown, status, site, neuron, signal } = page;
  const text = input.value;
  change({ text: text.length <= LONGEST_IN_URL ? text || null : null });
  if (!text) {
    show(shown);
    return status.clear();
  }
  status.say("Reading…");
  const found = [];
  try {
    for await (const line of lines("live/activations", { site: site.key, neuron, text }, signal)) {
      if (signal.aborted) return undefined;
      const waiting = waitingFor(line);
      if (waiting) status.say(waiting);
      if (!line.tokens) continue;
      if (!found.length) show(shown, legendOf(page));
      found.push(line);
      shown.append(windowOf(page, line, found.length - 1, text));
    }
    return status.say(summary(found, text));
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    show(shown);
    return status.trouble(error);
  }
}

function legendOf({ site, scale }) {
  return legend({ scale, negative: site.unit === "neuron" || site.unit === "direction", pairs: false });
}

function windowOf(page, line, number, text) {
  const { scale, site } = page;
  const node = heat({ ...line, scale });
  if (site.unit !== "head") return element("div", { class: "window" }, node);
  const beside = element("div", { class: "taken", "aria-live": "polite" });
  const pick = (event) => {
    const token = event.target.closest?.("[data-place]");
    if (!token || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    takes({ ...page, beside, line, number, text }, Number(token.dataset.place));
  };
  node.addEventListener("click", pick);
  node.addEventListener("keydown", pick);
  const hint = number ? null : element("p", { class: "quiet hint" }, "Each token is as strong as what the head writes there, for the token it writes most for. Choose one, by a click or with Enter, to see what it takes from each token before it.");
  return element("div", { class: "window" }, hint, node, beside);
}

// One row of the pair map: what the head writes at `query` for each key.
async function takes({ site, neuron, text, scale, beside, line, number, signal }, query) {
  show(beside, element("p", { class: "quiet" }, "Reading…"));
  try {
    for await (const row of lines("live/activations", { site: site.key, neuron, text, query: [number, query] }, signal)) {
      if (!row.tokens) continue;
      const key = strongest({ activations: row.activations.slice(0, query + 1), unscored: row.unscored });
      const title = element("h3", {}, "What is written at “", element("bdi", {}, named(line.tokens[query])), "” for each token up to it; most, ", element("b", {}, short(row.activations[key])), ", for “", element("bdi", {}, named(line.tokens[key])), "”");
      show(beside, title, heat({ tokens: row.tokens, activations: row.activations, unscored: row.unscored, scale, pair: [query, key] }));
    }
  } catch (error) {
    if (error.name !== "AbortError") show(beside, trouble(error));
  }
}

function summary(windows, text) {
  if (!windows.length) return "No token.";
  const tokens = windows.reduce((sum, { tokens: some, unscored }) => sum + some.length - unscored.length, 0);
  let best = { value: -Infinity, token: "" };
  for (const one of windows) {
    const place = strongest(one);
    if (one.activations[place] > best.value) best = { value: one.activations[place], token: one.tokens[place] };
  }
  const fires = best.value > 0 ? [`strongest ${short(best.value)} at `, element("bdi", {}, `“${named(best.token)}”`)] : ["nothing in it makes it fire"];
  const parts = [`${count(tokens)} ${tokens === 1 ? "token" : "tokens"} in ${windows.length} ${windows.length === 1 ? "window" : "windows"}; `, ...fires];
  return text.length > LONGEST_IN_URL ? [...parts, ". Too long for the address: a link to this page leaves the text out."] : parts;
}
