// Resources of the contract (docs/view.md), each fetched once while it is remembered.

export class Unavailable extends Error {
  constructor(message, run, status) {
    super(message);
    this.run = run; // the command that mends it, or null
    this.status = status;
  }
}

const REMEMBERED = 512;
const remembered = new Map();

// The parsed resource at `path`, such as "workspace.json" or resource("SITE", "summary").
export function get(path, { fresh = false, signal } = {}) {
  if (!fresh && remembered.has(path)) return remembered.get(path);
  const made = request(path, { signal });
  remembered.set(path, made);
  const forget = () => remembered.get(path) === made && remembered.delete(path);
  // A request that another page stopped is none that this one may wait for.
  signal?.addEventListener("abort", forget);
  made.then(() => signal?.removeEventListener("abort", forget), forget);
  if (remembered.size > REMEMBERED) remembered.delete(remembered.keys().next().value);
  return made;
}

export function resource(site, ...parts) {
  return [site, ...parts].map(encodeURIComponent).join("/") + ".json";
}

export function neuronResource(site, neuron) {
  return resource(site, "neurons", Math.floor(neuron / 1000), neuron);
}

async function request(path, options) {
  let reply;
  try {
    reply = await fetch(`api/${path}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unavailable("The server does not answer. Was it stopped?", "neuron-explainer view", 0);
  }
  if (reply.ok) return reply.json();
  throw await refusal(reply);
}

async function refusal(reply) {
  const said = await reply.json().catch(() => ({}));
  const known = reply.status === 404 ? "This is not here." : `The server answered ${reply.status}.`;
  return new Unavailable(said.error ?? known, said.run ?? null, reply.status);
}

// POST, and the reply as JSON.
export async function post(path, body) {
  const reply = await send(path, body);
  return reply.json();
}

// POST, and each line of the reply as soon as it comes. Throws Unavailable on an error line too.
export async function* lines(path, body, signal) {
  const reply = await send(path, body, signal);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    rest += value ?? "";
    const whole = rest.split("\n");
    rest = whole.pop();
    for (const line of whole) {
      const said = JSON.parse(line);
      if (said.error) throw new Unavailable(said.error, said.run ?? null, 200);
      yield said;
      if (said.done) return;
    }
    if (done) throw new Unavailable("The server stopped before it was done.", null, 200);
  }
}

async function send(path, body, signal) {
  let reply;
  try {
    reply = await fetch(`api/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unavailable("The server does not answer. Was it stopped?", "neuron-explainer view", 0);
  }
  if (!reply.ok) throw await refusal(reply);
  return reply;
}
