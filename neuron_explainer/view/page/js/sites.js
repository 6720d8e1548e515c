// How subjects, sites, runs and neurons are called, and how what a person types is found among them.

import { readable } from "./text.js";

const MANY = { neuron: "neurons", direction: "directions", latent: "latents", head: "heads" };

// What a URL names: it may name anything, "constructor" included.
export function siteAt(workspace, key) {
  return key !== undefined && Object.hasOwn(workspace.sites, key) ? workspace.sites[key] : null;
}

export function runAt(workspace, key) {
  return key !== undefined && Object.hasOwn(workspace.runs, key) ? workspace.runs[key] : null;
}

export function units(site, number = 2) {
  return number === 1 ? site.unit : (MANY[site.unit] ?? "units");
}

export function subjectOf(workspace, site) {
  return workspace.subjects.find((subject) => subject.key === site.subject) ?? { key: site.subject, name: site.subject, sites: [] };
}

// "layer 6" and what follows the layer in the name, which tells apart the sites of one layer.
export function layerName(site) {
  return site.layer === null || site.layer === undefined ? readable(site.name) : `layer ${site.layer}`;
}

export function runsOf(workspace, site) {
  return (site.runs ?? []).map((key) => runAt(workspace, key)).filter(Boolean);
}

export function runName(workspace, key) {
  return readable(runAt(workspace, key)?.name ?? key);
}

// The neuron that `typed` names: "12" in the site at hand, "6/12" in a layer, "site/12", "subject/site/12".
// {site, neuron}, or {wrong: why there is none}.
export function findNeuron(workspace, typed, here) {
  const [, place, digits] = /^(?:(.*)\/)?\s*#?(\d+)$/.exec(typed.trim()) ?? [];
  if (digits === undefined) return { wrong: "Type a number, or layer/number, or subject/site/number." };
  const neuron = Number(digits);
  const current = siteAt(workspace, here);
  const site = place === undefined ? (current ?? onlySite(workspace)) : siteNamed(workspace, place.trim(), current);
  if (!site) return { wrong: place === undefined ? "Say of which layer: layer/number." : `There is no site “${readable(place)}” here.` };
  if (neuron >= site.width) return { wrong: `${readable(site.name)} has ${site.width} ${units(site)}: 0 to ${site.width - 1}.` };
  return { site: site.key, neuron };
}

function onlySite(workspace) {
  const sites = Object.values(workspace.sites);
  return sites.length === 1 ? sites[0] : null;
}

function siteNamed(workspace, place, current) {
  const sites = Object.values(workspace.sites);
  const near = sites.filter((site) => !current || site.subject === current.subject);
  const full = (site) => `${subjectOf(workspace, site).name}/${site.name}`;
  return (
    sites.find((site) => full(site) === place || site.key === place) ??
    near.find((site) => site.name === place) ??
    sites.find((site) => site.name === place) ??
    (/^\d+$/.test(place) ? near.find((site) => site.layer === Number(place)) : null) ??
    null
  );
}
