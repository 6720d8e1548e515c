// How numbers, tokens and names are written.

const NAMED = { "\n": "⏎", "\t": "⇥", "\r": "␍" };
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

// A token or other foreign text with nothing invisible in it; line breaks and tabs are symbols.
export function readable(text) {
  return text.replace(INVISIBLE, (character) => {
    const code = character.codePointAt(0);
    return NAMED[character] ?? (code < 256 ? `\\x${hex(code, 2)}` : `\\u${hex(code, 4)}`);
  });
}

function hex(code, digits) {
  return code.toString(16).padStart(digits, "0");
}

export function quoted(token) {
  return token === null ? "all other tokens" : `“${readable(token)}”`;
}

export function figure(value, digits = 3) {
  return value === null || value === undefined ? "–" : minus(value.toFixed(digits));
}

// A minus sign as wide as a digit, and none before a zero.
function minus(written) {
  return Number(written) === 0 ? written.replace("-", "") : written.replaceAll("-", "−");
}

// Three significant digits, whatever the size.
export function short(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return minus(size >= 1e5 || size < 1e-3 ? value.toExponential(1).replace(".0e", "e").replace("e+", "e") : String(Number(value.toPrecision(3))));
}

export function percent(share, digits = 0) {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`;
}

export function count(number) {
  return number.toLocaleString("en");
}

export function interval(ends) {
  return ends ? `[${figure(ends[0])}, ${figure(ends[1])}]` : "";
}

const METRICS = {
  correlation_top_and_random: "correlation, top and random",
  correlation_random_only: "correlation, random only",
  correlation_population: "correlation, whole corpus",
  auroc_top_and_random: "AUROC",
  balanced_accuracy_top_and_random: "balanced accuracy",
};

export function metricName(metric) {
  return METRICS[metric] ?? metric.replaceAll("_", " ");
}
