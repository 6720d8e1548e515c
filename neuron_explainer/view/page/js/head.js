// The head of every page: the pages, where one is, and the box that leads to a neuron.

import { element, show } from "./dom.js";
import { help, key } from "./keys.js";
import { go, link } from "./route.js";
import { findNeuron, layerName, siteAt, subjectOf } from "./sites.js";
import { readable } from "./text.js";

let asked = {};
let workspace = null;

export function head(loaded, state) {
  asked = state;
  workspace = loaded;
  const top = document.getElementById("top");
  if (!top.firstChild) show(top, brand(), element("nav", { "aria-label": "Pages" }), trail(), jump(), helpButton());
  show(top.querySelector("nav[aria-label=Pages]"), pages());
  show(top.querySelector(".trail"), steps());
}

function brand() {
  return element("a", { class: "brand", href: "?" }, "neuron-explainer");
}

function pages() {
  const entries = [["Neurons", {}]];
  if (Object.keys(workspace.runs).length > 1) entries.push(["Compare", { page: "compare" }]);
  if (workspace.live.try) entries.push(["Try it", { page: "try" }]);
  if (workspace.live.judge) entries.push(["Judge", { page: "judge" }]);
  const current = asked.page ?? "home";
  return entries.map(([label, to]) =>
    element("a", { href: link(to), "aria-current": (to.page ?? "home") === current ? "page" : null }, label),
  );
}

function trail() {
  return element("nav", { class: "trail", "aria-label": "You are here" });
}

function steps() {
  const site = siteAt(workspace, asked.site);
  if (!site) return null;
  const subject = subjectOf(workspace, site);
  const inNeuron = asked.neuron !== undefined && asked.page !== "layer";
  const made = [
    element("li", {}, element("a", { href: link({ subject: subject.key }) }, element("bdi", {}, readable(subject.name)))),
    element(
      "li",
      {},
      element(
        "a",
        { href: link({ page: "layer", site: site.key }), "aria-current": asked.page === "layer" ? "page" : null, title: readable(site.name) },
        layerName(site),
        " ",
        element("bdi", { class: "mono" }, readable(site.name)),
      ),
    ),
  ];
  if (inNeuron) {
    const to = { page: "neuron", site: site.key, neuron: asked.neuron };
    made.push(element("li", {}, element("a", { href: link(to), "aria-current": asked.page === "neuron" ? "page" : null }, readable(asked.neuron))));
  }
  return element("ol", {}, made);
}

function jump() {
  const wrong = element("output", { class: "wrong", for: "jump" });
  const input = element("input", {
    id: "jump", type: "text", inputmode: "text", autocomplete: "off", spellcheck: "false",
    placeholder: "12 or layer/12", "aria-label": "Go to neuron", "aria-keyshortcuts": "g",
    oninput: () => show(wrong),
  });
  const form = element("form", { class: "jump", role: "search", "aria-label": "Neuron" }, input, wrong);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!workspace) return;
    const found = findNeuron(workspace, input.value, asked.site);
    if (found.wrong) return void show(wrong, found.wrong);
    input.value = "";
    input.blur();
    go({ page: "neuron", ...found });
  });
  key(null, "g", "Go to a neuron", () => input.select());
  return form;
}

function helpButton() {
  key(null, "?", "Show these keys", help);
  return element("button", { class: "help", type: "button", "aria-label": "Keys", "aria-keyshortcuts": "?", onclick: help }, "?");
}
