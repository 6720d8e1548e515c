// Parts that are not in the way: closed ones, whose being open is in the URL
// (`open=table-a,scores-b`), and such as scroll.

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

// What may be wider or longer than there is room for; the keyboard can scroll it, and its arrow
// keys do nothing else.
export function scrolling(label, ...children) {
  const inside = (event) => event.key.startsWith("Arrow") && event.stopPropagation();
  return element("div", { class: "wide scroll", tabindex: 0, role: "region", "aria-label": label, onkeydown: inside }, children);
}
