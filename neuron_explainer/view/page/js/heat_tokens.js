// Foreign text as nodes: every character can be seen, and none of them does anything.

import { element } from "./dom.js";
import { readable } from "./text.js";

const LONGEST = 240; // characters of one token that are drawn
// What cannot stand as it is: escaped bytes and backslashes of the contract, and invisible characters.
const ODD = /\\\\|(?:\\x[0-9a-f]{2})+|[\r\n]+|[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]|\u00a0/gu;
const PLAIN = /^[\p{L}\p{N}\p{P}\p{S}][\p{L}\p{M}\p{N}\p{P}\p{S} ]*$/u;

// The nodes that show a token. Spaces at its ends are elements, so that they can be marked.
export function tokenNodes(token, longest = LONGEST) {
  if (PLAIN.test(token) && !token.includes("\\") && !token.endsWith(" ") && token.length <= longest) return [token];
  const cut = token.length > longest;
  const text = cut ? token.slice(0, longest) : token;
  const [, before, middle, after] = /^( *)(.*?)( *)$/su.exec(text);
  return [
    spaces(before),
    /^\p{M}/u.test(middle) ? "\u25cc" : null, // a mark without the character that it belongs to
    parts(middle),
    spaces(after),
    cut ? written(`… ${token.length - longest} more`) : null,
  ].flat().filter(Boolean);
}

function spaces(text) {
  return text ? element("span", { class: "space" }, text) : null;
}

function parts(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(ODD)) {
    if (match.index > end) nodes.push(text.slice(end, match.index));
    nodes.push(...odd(match[0]));
    end = match.index + match[0].length;
  }
  if (end < text.length) nodes.push(text.slice(end));
  return nodes;
}

function odd(found) {
  if (found === "\\\\") return ["\\"];
  if (found.startsWith("\\x")) return [written(found)];
  if (found === "\u00a0") return [written("⍽")];
  const shown = [written(readable(found))];
  if (/[\r\n]/.test(found)) shown.push(element("span", { class: "break" }, "\n"));
  return shown;
}

// What stands for a character rather than being it.
function written(text) {
  return element("span", { class: "written" }, text);
}

// One line that names a token, for where no nodes can be: labels and tooltips.
export function named(token) {
  const text = token.replace(/\\\\/g, "\\");
  return readable(text.length > 60 ? `${text.slice(0, 60)}…` : text).replace(/^ +| +$/g, (found) => "␣".repeat(found.length));
}
