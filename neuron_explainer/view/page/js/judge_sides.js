// The judging itself: one neuron after the other, two sides without names, one key an answer.

import { get, post } from "./api.js";
import { announce, element, show } from "./dom.js";
import { heat } from "./heat.js";
import { legend } from "./heat_legend.js";
import { held, Order, swapped } from "./judge_order.js";
import { summaries } from "./judge_summary.js";
import { key } from "./keys.js";
import { statusLine } from "./live_parts.js";
import { scaleOf } from "./neuron_records.js";
import { change, link } from "./route.js";
import { runName } from "./sites.js";
import { figure, readable, short } from "./text.js";

const ANSWERS = [
  ["1", "left", "The left one is better"],
  ["2", "right", "The right one is better"],
  ["0", "tie", "Both are as good"],
  ["n", "neither", "Neither will do"],
];

export class Judging {
  #done = []; // places in the order of judging, for undo
  #saving = Promise.resolve();

  constructor(parts) {
    Object.assign(this, parts);
    this.order = new Order(this);
    this.status = statusLine();
    this.answers = new Map(this.saved.filter((one) => !one.stale && one.site === this.site && this.#ours(one)).map((one) => [one.neuron, this.#turned(one)]));
    for (const [name, answer, what] of ANSWERS) key(this.signal, name, what, () => this.#answer(answer));
    key(this.signal, "u", "Take the last judgement back", () => this.#undo());
    key(this.signal, "f", "Whole texts or snippets", () => this.about && this.#toggle());
    key(this.signal, "ArrowRight", "The next neuron", () => this.#go(this.place + 1));
    key(this.signal, "ArrowLeft", "The neuron before", () => this.#go(this.place - 1));
  }

  start(at) {
    return this.#go(at, { first: true });
  }

  #ours({ first, second }) {
    return (first === this.a && second === this.b) || (first === this.b && second === this.a);
  }

  // A kept judgement as "a", "b", "tie" or "neither".
  #turned({ first, preferred }) {
    if (preferred === "first" || preferred === "second") return (preferred === "first") === (first === this.a) ? "a" : "b";
    return preferred;
  }

  async #go(place, { first = false } = {}) {
    if (place < 0 || (!first && place === this.place)) return;
    this.place = place;
    const about = await this.order.at(place);
    if (this.signal.aborted || this.place !== place) return;
    this.about = about;
    change({ at: place || null });
    if (!about) return this.#end();
    const swap = swapped({ seed: this.seed, site: this.site, neuron: about.neuron });
    this.left = swap ? "b" : "a";
    this.#draw();
    scrollTo(0, 0);
    announce(`Neuron ${place + 1} of ${this.number}`);
    this.order.at(place + 1).catch(() => {});
  }

  #draw() {
    const { about } = this;
    const records = held(about);
    const scale = scaleOf(about.records);
    show(
      this.main,
      element(
        "div",
        { class: "judge flat" },
        element("h1", {}, "Which explanation is better?", element("span", { class: "of quiet" }, ` ${about.unit} ${this.place + 1} of ${this.number}`)),
        element("progress", { max: this.number, value: this.place, "aria-label": "Progress" }),
        element("div", { class: "blind" }, this.#side("left", "1"), this.#side("right", "2")),
        this.#buttons(),
        this.status.node,
        element("h2", {}, "Records that neither explainer saw"),
        element("label", { class: "full" }, element("input", { type: "checkbox", checked: this.full, "data-keep": "full", onchange: () => this.#toggle() }), " whole texts ", element("kbd", {}, "f")),
        legend({ scale, negative: records.some(({ activations }) => activations.some((value) => value < -0.02 * scale)), pairs: about.unit === "head" }),
        element("ol", { class: "record-list" }, records.map((record) => shown(record, scale, this.full))),
      ),
    );
  }

  #toggle() {
    this.full = !this.full;
    change({ full: this.full ? "1" : null });
    const focused = document.activeElement?.dataset.keep;
    this.#draw();
    if (focused) this.main.querySelector(`[data-keep="${focused}"]`)?.focus();
  }

  #side(side, name) {
    const run = (side === "left") === (this.left === "a") ? this.a : this.b;
    const { text } = this.about.explanations.find((one) => one.run === run);
    return element("section", { class: "blind-side", "aria-label": `${side} explanation` }, element("h2", {}, element("kbd", {}, name), " ", side), element("p", { class: "statement", dir: "auto", tabindex: 0 }, readable(text) || element("span", { class: "quiet" }, "an empty explanation")));
  }

  #buttons() {
    const given = this.#asSide(this.answers.get(this.about.neuron));
    const labels = { left: "Left", right: "Right", tie: "Tie", neither: "Neither" };
    return element(
      "div",
      { class: "answers", role: "group", "aria-label": "Which is better?" },
      ANSWERS.map(([name, answer, what]) => element("button", { type: "button", title: what, "aria-pressed": given === answer ? "true" : "false", "aria-keyshortcuts": name, onclick: () => this.#answer(answer) }, element("kbd", {}, name), ` ${labels[answer]}`)),
      element("button", { type: "button", class: "undo", disabled: !this.#done.length, "aria-keyshortcuts": "u", onclick: () => this.#undo() }, element("kbd", {}, "u"), " Undo"),
      element("button", { type: "button", disabled: this.place === 0, "aria-label": "The one before", onclick: () => this.#go(this.place - 1) }, "←"),
      element("button", { type: "button", "aria-label": "The next", onclick: () => this.#go(this.place + 1) }, "→"),
    );
  }

  #asSide(answer) {
    if (answer !== "a" && answer !== "b") return answer ?? null;
    return answer === this.left ? "left" : "right";
  }

  async #answer(side) {
    if (!this.about) return;
    const place = this.place;
    const answer = side === "left" ? this.left : side === "right" ? (this.left === "a" ? "b" : "a") : side;
    if (await this.#save(this.about.neuron, answer)) {
      this.#done.push({ place, neuron: this.about?.neuron });
      if (this.place === place) await this.#go(place + 1);
    }
  }

  async #undo() {
    const last = this.#done.pop();
    if (!last) return;
    if (await this.#save(last.neuron, null)) await this.#go(last.place, { first: true });
    else this.#done.push(last);
  }

  // One after the other, so that the table ends as the last key said.
  #save(neuron, answer) {
    const preferred = answer === "a" ? "first" : answer === "b" ? "second" : answer;
    const saved = this.#saving.then(() => post("judgements", { site: this.site, neuron, first: this.a, second: this.b, preferred }));
    this.#saving = saved.catch(() => {});
    return saved.then(
      () => {
        if (answer === null) this.answers.delete(neuron);
        else this.answers.set(neuron, answer);
        this.status.clear();
        return true;
      },
      (error) => {
        this.status.trouble(error);
        return false;
      },
    );
  }

  // Only here the names come out.
  async #end() {
    const { pairs } = await get("judgements-summary.json", { fresh: true, signal: this.signal });
    const judged = [];
    for (let place = 0; place < this.place; place++) {
      const about = await this.order.at(place);
      if (about) judged.push(about);
    }
    if (this.signal.aborted || this.about) return;
    const { a, b, workspace } = this;
    show(
      this.main,
      element(
        "div",
        { class: "judge" },
        element("h1", {}, judged.length ? "Judged" : "Nothing to judge"),
        judged.length ? null : element("p", {}, "No neuron was found that both runs explain in different words and that has held-out records."),
        this.order.same ? element("p", { class: "quiet" }, `${this.order.same} neurons were passed over because both runs say the same.`) : null,
        summaries(pairs, workspace, [a, b]),
        judged.length ? element("h2", {}, "These judgements") : null,
        judged.length ? element("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "These judgements" }, this.#table(judged)) : null,
        element("p", {}, element("button", { type: "button", onclick: () => this.#go(0) }, "Look at them again"), " ", element("a", { href: link({ page: "judge", site: this.site }) }, "Judge others")),
      ),
    );
    announce("Judged");
  }

  #table(judged) {
    const { a, b, workspace } = this;
    const said = { a: runName(workspace, a), b: runName(workspace, b), tie: "tie", neither: "neither" };
    const scores = [a, b].map((run) => [run, workspace.runs[run].main]);
    const row = (about) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, element("a", { href: link({ page: "neuron", site: this.site, neuron: about.neuron }) }, String(about.neuron))),
        element("td", {}, element("bdi", {}, said[this.answers.get(about.neuron)] ?? "not judged")),
        scores.map(([run, main]) => element("td", { class: "number" }, figure(scoreOf(about, run, main), 2))),
      );
    return element(
      "table",
      { class: "judged" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, judged[0].unit), element("th", { scope: "col" }, "preferred"), scores.map(([run]) => element("th", { scope: "col", class: "number" }, "score of ", element("bdi", {}, runName(workspace, run)))))),
      element("tbody", {}, judged.map(row)),
    );
  }
}

function scoreOf(about, run, main) {
  const found = about.explanations.find((one) => one.run === run)?.scores.find(({ simulator }) => simulator === main?.simulator);
  return found?.values[main.metric]?.value ?? null;
}

function shown(record, scale, full) {
  const about = [element("span", { class: "strong", title: "maximum" }, short(record.maximum)), element("span", { class: "tag" }, record.kind)];
  return element("li", {}, element("div", { class: "caption" }, about), element("div", { class: "body" }, heat({ ...record, scale, snippet: !full })));
}
