// The last minutes as stacked probabilities, with a mark where reasons were given; a click or the arrow keys choose a moment.
import { colour } from "./colours.js";

export const SPAN_S = 300;

export class Timeline {
  constructor(canvas, choose) {
    this.canvas = canvas;
    this.choose = choose;
    this.labels = [];
    this.reasons = [];
    this.back_s = 0; // seconds before now; 0 follows
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      this.go((1 - (event.clientX - box.left) / box.width) * this.span());
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); at(event); });
    canvas.addEventListener("pointermove", (event) => { if (canvas.hasPointerCapture(event.pointerId)) at(event); });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: 1, ArrowRight: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (step) this.go(this.back_s + step);
      else if (event.key === "End" || event.key === "Escape") this.go(0);
      else if (event.key === "Home") this.go(this.span());
      else return;
      event.preventDefault();
    });
  }

  add(message) {
    const list = message.done === undefined ? this.labels : this.reasons;
    if (list.length && message.session !== list.at(-1).session) this.clear();
    if (list.length && message.timestamp_s < list.at(-1).timestamp_s) list.length = 0; // a loop began again
    list.push(message);
    while (list.length && list[0].timestamp_s < message.timestamp_s - SPAN_S) list.shift();
  }

  clear() {
    this.labels.length = this.reasons.length = 0;
    this.back_s = 0;
  }

  span() {
    const newest = this.labels.at(-1)?.timestamp_s ?? 0;
    return Math.min(SPAN_S, Math.max(20, newest - (this.labels[0]?.timestamp_s ?? newest)));
  }

  go(back_s) {
    this.back_s = Math.max(0, Math.min(this.span(), back_s < 0.5 ? 0 : back_s));
    this.canvas.setAttribute("aria-valuenow", -Math.round(this.back_s));
    this.canvas.setAttribute("aria-valuetext", this.back_s ? `${Math.round(this.back_s)} seconds ago` : "now");
    this.choose();
  }

  // The newest label and finished reason at the moment chosen.
  chosen() {
    const at_s = (this.labels.at(-1)?.timestamp_s ?? 0) - this.back_s;
    const upTo = (list) => list.findLast((message) => message.timestamp_s <= at_s + 1e-6);
    return { label: upTo(this.labels) ?? this.labels[0], reason: upTo(this.reasons) };
  }

  paint() {
    const { canvas, labels } = this;
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !labels.length) return;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const end_s = labels.at(-1).timestamp_s;
    const span_s = this.span();
    const x = (time_s) => width * (1 - (end_s - time_s) / span_s);
    const names = Object.keys(labels.at(-1).smoothed.scores);
    // Of one grid step: a window that was skipped leaves a gap.
    const [a, b] = [labels.at(-2) ?? labels[0], labels.at(-1)];
    const hop_s = b.window.id > a.window.id ? (b.timestamp_s - a.timestamp_s) / (b.window.id - a.window.id) : 0.5;
    for (const label of labels) {
      let y = height;
      const left = x(label.timestamp_s - hop_s);
      const wide = Math.max(1, x(label.timestamp_s) - left + 0.6);
      for (const name of names) {
        const tall = (label.smoothed.scores[name] ?? 0) * height;
        pen.fillStyle = colour(name);
        pen.fillRect(left, y - tall, wide, tall + 0.3);
        y -= tall;
      }
    }
    const ink = getComputedStyle(canvas).getPropertyValue("--ink");
    const card = getComputedStyle(canvas).getPropertyValue("--card");
    for (const reason of this.reasons) {
      pen.beginPath();
      pen.arc(x(reason.timestamp_s) - 1, 8, 4, 0, 7);
      pen.fillStyle = card;
      pen.fill();
      pen.strokeStyle = ink;
      pen.lineWidth = 1.5;
      pen.stroke();
    }
    if (this.back_s) {
      pen.fillStyle = ink;
      pen.fillRect(x(end_s - this.back_s) - 1, 0, 2, height);
    }
  }
}
