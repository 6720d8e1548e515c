// Try a neuron: type a text and see it fire, or type an explanation and see what it predicts.

import { get, neuronResource, Unavailable } from "../api.js";
import { element, show } from "../dom.js";
import { explanationSection } from "../live_explanation.js";
import { askedNeuron, chooseNeuron, siteName } from "../live_parts.js";
import { textSection } from "../live_text.js";
import { link } from "../route.js";
import { scaleOf } from "../neuron_records.js";

export function title(asked) {
  return asked.neuron === undefined ? "Try it" : `Try ${asked.neuron}`;
}

export async function draw(main, { state: asked, workspace, signal }) {
  if (!workspace.live.try) throw new Unavailable("These pages are files: to try a neuron, serve the workspace.", "neuron-explainer view", 404);
  const { site, neuron } = askedNeuron(asked, workspace);
  const [live, about] = await Promise.all([get("live.json", { fresh: true, signal }), get(neuronResource(site.key, neuron))]);
  if (signal.aborted) return;
  const page = { site, neuron, live, about, asked, workspace, signal, limits: live.limits, unable: unable(live, site), scale: about.statistics?.maximum > 0 ? about.statistics.maximum : scaleOf(about.records) };
  show(
    main,
    element(
      "div",
      { class: "try" },
      element("h1", {}, `Try ${site.unit} `, element("a", { href: link({ page: "neuron", site: site.key, neuron }) }, String(neuron)), element("span", { class: "of quiet" }, " of ", element("bdi", {}, siteName(site)))),
      chooseNeuron(workspace, site, neuron),
      element("div", { class: "tried" }, textSection(page), explanationSection(page)),
    ),
  );
}

function unable(live, site) {
  const found = live.sites[site.key];
  return found ? new Unavailable(`No text can be typed into it: ${found.error}.`, found.run, 409) : null;
}
