// A part that is closed at first, and whose being open is in the URL: `open=table-a,scores-b`.

import { element } from "./dom.js";
import { change, state } from "./route.js";

function opened() {
  return (state().open ?? "").split(",").filter(Boolean);
}

// `make` is called when the part is opened for the first time.
export function fold(key, summary, make) {
  const name = key.replaceAll(",", "-");
  const body = element("div", {});
  const fill = () => body.childNodes.length || body.append(...[make()].flat());
  const open = opened().includes(name);
  if (open) fill();
  const part = element("details", { class: "fold", open }, element("summary", {}, summary), body);
  part.addEventListener("toggle", () => {
    if (part.open) fill();
    const others = opened().filter((other) => other !== name);
    const now = part.open ? [...others, name] : others;
    if (part.isConnected && now.join() !== opened().join()) change({ open: now.join(",") || null });
  });
  return part;
}
