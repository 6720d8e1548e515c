// Which tokens of a record a snippet shows.

const BEFORE = 14;
const AFTER = 8;

// [[first, end], …]: around the maximum; of a head around query and key, with a gap between them.
export function windows({ tokens, pair = null }, peak) {
  const places = pair ? [...pair].sort((a, b) => a - b) : [peak];
  const found = places.map((place) => [Math.max(0, place - BEFORE), Math.min(tokens.length, place + AFTER + 1)]);
  const [first, second] = found;
  if (!second) return [first];
  return second[0] <= first[1] + 2 ? [[first[0], second[1]]] : found;
}
