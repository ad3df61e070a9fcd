// One colour for each label, the same in bars and timeline; labels beyond the seven take the spare ones in their order.
const KNOWN = {
  happy: "#e0a100", surprise: "#d9622b", neutral: "#7d8a99", angry: "#c8373a",
  disgust: "#5f8f2f", sad: "#3a73b8", fear: "#8055b0",
};
const SPARE = ["#2a9d8f", "#b5557f", "#6b7a2a", "#4f6bd6", "#a0643c", "#2f8f5b"];
const given = new Map();

export function colour(label) {
  if (Object.hasOwn(KNOWN, label)) return KNOWN[label];
  if (!given.has(label)) given.set(label, SPARE[given.size % SPARE.length]);
  return given.get(label);
}
