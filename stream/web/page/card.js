// One source: what it shows of the newest messages, or of the moment that is chosen in its timeline.
import { colour } from "./colours.js";
import { Timeline } from "./timeline.js";

const STAGES = { capture: "#5b8def", queue: "#9aa7b5", encode: "#2a9d8f", prefill: "#e0a100", decode: "#b5557f" };
const percent = (p) => `${Math.round(100 * p)} %`;

// Who is there, in words.
function presence({ people, absent }) {
  const seen = people == null ? null : people === 0 ? "nobody visible" : people === 1 ? "one person" : `${people} people`;
  return [seen, people ? absent?.video : null, absent?.audio].filter(Boolean).join(", ");
}

export class Card {
  constructor(source) {
    this.element = document.getElementById("source").content.firstElementChild.cloneNode(true);
    this.element.dataset.source = source;
    this.source = source;
    this.find = (selector) => this.element.querySelector(selector);
    this.find("h2").textContent = source;
    this.element.setAttribute("aria-label", source);
    this.canvas = this.find(".picture canvas");
    this.find(".picture").hidden = true;
    this.timeline = new Timeline(this.find(".timeline"), () => this.paint());
    this.bars = new Map();
    this.writing = null;
    this.status = null;
    this.due = false;
  }

  take(message, earlier) {
    if (message.topic.endsWith(".label")) {
      this.timeline.add(message);
    } else if (message.topic.endsWith(".reasoning")) {
      this.writing = message.done ? null : message;
      if (message.done) this.timeline.add(message);
    } else {
      this.status = message;
    }
    if (!earlier || !this.due) this.paintSoon();
  }

  async picture({ timestamp_s, width, height }, jpeg) {
    const image = await createImageBitmap(jpeg);
    this.find(".picture").hidden = false;
    if (this.canvas.width !== width || this.canvas.height !== height) [this.canvas.width, this.canvas.height] = [width, height];
    const pen = this.canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    image.close();
    const there = this.there();
    this.outline(pen, there?.face, width, height);
    this.canvas.dataset.at = timestamp_s;
    this.find("figcaption").textContent = there ? presence(there) : "";
    this.canvas.setAttribute("aria-label", `Picture of ${this.source}`);
  }

  // The newest message that says who is there: while there is nobody, statuses alone do.
  there() {
    const label = this.timeline.labels.at(-1);
    const newest = this.status && !(label && label.timestamp_s > this.status.timestamp_s) ? this.status : label;
    return newest?.absent ? newest : null;
  }

  // The face's box, in parts of the picture, where messages carry it.
  outline(pen, face, width, height) {
    this.canvas.dataset.box = face ? face.box.join(" ") : "";
    if (!face) return;
    const [left, top, wide, tall] = face.box;
    const label = this.timeline.labels.at(-1);
    pen.strokeStyle = label ? colour(label.smoothed.label) : "#ffffff";
    pen.lineWidth = 3;
    pen.strokeRect(left * width, top * height, wide * width, tall * height);
  }

  hidePicture() {
    this.find(".picture").hidden = true;
  }

  paintSoon() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => { this.due = false; this.paint(); });
    setTimeout(() => { if (this.due) { this.due = false; this.paint(); } }, 500); // a hidden page draws no frames
  }

  paint() {
    const { label, reason } = this.timeline.chosen();
    const now = this.timeline.back_s === 0;
    if (label) {
      this.paintLabel(label);
      this.paintHealth(label);
    }
    this.paintReason(now && this.writing ? this.writing : reason);
    this.paintState();
    const absent = now && this.there()?.absent;
    const heard = this.there()?.speech_ratio != null && !absent?.audio;
    this.element.classList.toggle("away", Boolean(absent?.video) && !heard);
    this.find(".at").textContent = now ? "" : `· ${Math.round(this.timeline.back_s)} s ago`;
    this.timeline.paint();
  }

  paintLabel(label) {
    const { smoothed } = label;
    this.element.dataset.window = label.window.id;
    const name = this.find(".name");
    if (name.textContent !== smoothed.label) name.textContent = smoothed.label;
    name.style.color = "";
    this.find(".sure").textContent = `${percent(smoothed.scores[smoothed.label])} · this window: ${label.label} ${percent(label.scores[label.label])}`;
    if (this.bars.size !== Object.keys(smoothed.scores).length || [...this.bars.keys()].some((key) => !(key in smoothed.scores))) this.makeBars(smoothed.scores);
    for (const [key, { row, fill, per }] of this.bars) {
      fill.style.transform = `scaleX(${smoothed.scores[key]})`;
      per.textContent = percent(smoothed.scores[key]);
      row.classList.toggle("held", key === smoothed.label);
    }
  }

  makeBars(scores) {
    this.bars.clear();
    const rows = Object.keys(scores).map((key) => {
      const row = document.createElement("li");
      const [name, bar, per] = ["span", "span", "span"].map((tag) => document.createElement(tag));
      const fill = document.createElement("i");
      name.textContent = key;
      bar.className = "bar";
      fill.style.background = colour(key);
      bar.append(fill);
      per.className = "per";
      row.append(name, bar, per);
      this.bars.set(key, { row, fill, per });
      return row;
    });
    this.find(".bars").replaceChildren(...rows);
  }

  paintReason(reason) {
    this.find("blockquote").textContent = reason?.think || (reason ? (reason.done ? "Nothing stands out." : "…") : "No reasons yet.");
    let words = "";
    if (reason?.done) {
      const agrees = reason.agrees_with_label ? "as the label of its window" : "unlike the label of its window";
      words = `${reason.answer === null ? "No answer could be read" : `Answer: ${reason.answer}, ${agrees}`} (${reason.window.start_s.toFixed(1)} to ${reason.window.end_s.toFixed(1)} s)`;
    } else if (reason) {
      words = "writing …";
    }
    this.find(".answer").textContent = words;
  }

  paintState() {
    const line = this.find(".state");
    if (!this.status) return;
    line.dataset.state = this.status.state;
    line.textContent = [this.status.state, this.status.detail].filter(Boolean).join(": ");
  }

  paintHealth(label) {
    const latency = label.latency_ms;
    const stages = this.find(".stages");
    const total = Math.max(1, ...[Object.keys(STAGES).reduce((sum, stage) => sum + Math.max(0, latency[stage]), 0)]);
    stages.replaceChildren(...Object.entries(STAGES).map(([stage, shade]) => {
      const part = document.createElement("i");
      part.style.width = `${(100 * Math.max(0, latency[stage])) / total}%`;
      part.style.background = shade;
      return part;
    }));
    this.find(".legend").replaceChildren(...Object.entries(STAGES).map(([stage, shade]) => {
      const item = document.createElement("li");
      const dot = document.createElement("i");
      dot.style.background = shade;
      item.append(dot, `${stage} ${Math.round(latency[stage])}`);
      return item;
    }));
    stages.setAttribute("aria-label", Object.keys(STAGES).map((stage) => `${stage} ${Math.round(latency[stage])} ms`).join(", "));
    const there = (this.timeline.back_s === 0 && this.there()) || label;
    const facts = {
      latency: `${Math.round(latency.total)} ms`,
      picture: there.absent?.video ?? label.modalities.video,
      sound: there.absent?.audio ?? label.modalities.audio,
    };
    if (there.people != null) facts.people = there.people;
    if (there.speech_ratio != null) facts.speech = percent(there.speech_ratio);
    if (label.baseline_s != null) facts["voice known"] = `${label.baseline_s.toFixed(0)} s`;
    if (this.status) facts.rate = `${this.status.fps_in.toFixed(0)} frames/s, ${this.status.hops_per_s.toFixed(1)} labels/s`;
    const { frames, audio_ms, windows } = label.dropped;
    facts.dropped = `${frames} frames, ${(audio_ms / 1000).toFixed(1)} s, ${windows} windows`;
    facts.model = label.model;
    this.find("dl").replaceChildren(...Object.entries(facts).map(([name, value]) => {
      const pair = document.createElement("div");
      const [term, fact] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      fact.textContent = value;
      pair.append(term, fact);
      return pair;
    }));
  }
}
