// What the colours, lines and frames of heat maps mean, and the scale that they share.

import { element } from "./dom.js";
import { short } from "./text.js";

// `simulator`: the name of what predicts, where predictions are shown; `negative`, `undefinedOnes`:
// whether there are such activations; `pairs`: whether the records are an attention head's.
export function legend({ scale, mode = "true", simulator = null, simulationScale = 10, negative = false, pairs = false, undefinedOnes = false }) {
  return element(
    "div",
    { class: "heat-legend" },
    ramp("true", scale, "activation"),
    simulator ? ramp(mode, simulationScale, mode === "overlaid" ? `bar: ${simulator}` : `lower line: ${simulator}`) : null,
    key("peak", "abc", pairs ? "query" : "strongest"),
    pairs ? key("pair-key", "abc", "key") : null,
    negative ? key("below", "abc", "negative") : null,
    undefinedOnes ? key("undefined", "abc", "no prediction") : null,
  );
}

function ramp(mode, scale, meaning) {
  const kind = mode === "true" ? "above" : "above foreseen";
  const steps = [0.1, 0.3, 0.5, 0.75, 1].map((level) =>
    element("span", { class: kind, style: { "--heat-level": level, "--heat-thick": `${level < 0.35 ? 1 : level < 0.7 ? 2 : 3}px` } }),
  );
  return element("span", { class: "ramp" }, "0 ", element("span", { class: "steps", "aria-hidden": "true" }, steps), ` ${short(scale)} `, element("span", { class: "quiet" }, meaning));
}

function key(kind, text, meaning) {
  return element("span", {}, element("span", { class: `sample ${kind}`, "aria-hidden": "true" }, text), " ", element("span", { class: "quiet" }, meaning));
}
