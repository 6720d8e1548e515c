// The state of a page is its URL: `?page=neuron&site=…&neuron=3`. Nothing else remembers it.

// The current state as a plain object of strings.
export function state() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

// A link to another state. Parameters that are null, undefined or "" are left out.
export function link(parameters) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  // No form needs these escaped in a query, and a link is read by people.
  return "?" + new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString().replace(/%(2C|3A|3B|2F)/g, decodeURIComponent);
}

// Go there, as a step that "back" undoes.
export function go(parameters) {
  leave();
  const query = link(parameters);
  history.pushState(null, "", query === "?" ? location.pathname : query);
  dispatchEvent(new Event("route"));
}

// "Back" comes to where one was.
function leave() {
  history.replaceState({ ...history.state, scroll: scrollY }, "");
}

// Change parameters of this page. `step`: whether "back" undoes it; `draw`: whether it is drawn anew.
export function change(parameters, { step = false, draw = false } = {}) {
  const url = link({ ...state(), ...parameters });
  if (step) leave();
  history[step ? "pushState" : "replaceState"](null, "", url);
  if (draw) dispatchEvent(new Event("route"));
}
