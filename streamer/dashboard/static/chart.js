// Waveforms, spectrogram, probability and alerts of one station on one time axis.

import { clock } from "./dom.js";
import { drawHours } from "./helicorder.js";
import { colour, FRAME, HOP, power } from "./spectrum.js";

const LEFT = 86, RIGHT = 12, AXIS = 22, GAP = 6;
const SHARES = [1, 1, 1, 1.6, 1.5]; // Z, N, E, spectrogram, probability
const KEPT_S = 310;
const ROWS = { Z: 0, N: 1, 1: 1, E: 2, 2: 2, 3: 2 };

/** What is known of one station: pieces of samples and windows. */
export class Series {
  constructor() {
    this.pieces = new Map(); // component -> [{from, rate, values}]
    this.windows = [];
    this.frames = new Map(); // number -> decibels
    this.end = 0;
  }

  addSamples({ component, start_s: from, rate_hz: rate, zero, scale, data }) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)), view = new DataView(bytes.buffer);
    const values = Float64Array.from({ length: bytes.length / 2 }, (_, i) => zero + scale * view.getInt16(2 * i, true));
    const kept = this.pieces.get(component) ?? [];
    if (kept.some((piece) => piece.from === from)) return; // told twice after a connection that was lost
    kept.push({ from, rate, values });
    kept.sort((a, b) => a.from - b.from);
    this.end = Math.max(this.end, from + values.length / rate);
    while (kept[0].from < this.end - KEPT_S) kept.shift();
    this.pieces.set(component, kept);
  }

  addWindow([at, probability]) {
    this.windows.push([at, probability]);
    if (this.windows.length > 1 && at < this.windows.at(-2)[0]) this.windows.sort((a, b) => a[0] - b[0]);
    while (this.windows[0][0] < at - KEPT_S) this.windows.shift();
    this.end = Math.max(this.end, at);
  }

  /** One row per frame of the vertical within the span; those that were computed are kept. */
  spectrogram(from, to) {
    const pieces = this.pieces.get("Z") ?? [], rate = pieces[0]?.rate;
    if (!rate) return null;
    const first = Math.ceil((from * rate) / HOP), last = Math.floor((to * rate - FRAME) / HOP);
    for (const number of this.frames.keys()) if (number < first - 1000) this.frames.delete(number);
    const frames = [];
    for (let number = first; number <= last; number++) {
      if (!this.frames.has(number)) {
        const levels = power(samplesAt(pieces, rate, number * HOP, FRAME));
        if (levels) this.frames.set(number, levels);
      }
      frames.push(this.frames.get(number) ?? null);
    }
    return { frames, from: (first * HOP + FRAME / 2) / rate, step: HOP / rate, top: rate / 2 };
  }
}

function samplesAt(pieces, rate, first, count) {
  const found = new Float64Array(count).fill(NaN);
  for (const piece of pieces) {
    const offset = Math.round(piece.from * rate) - first;
    for (let i = Math.max(0, -offset); i < piece.values.length && i + offset < count; i++) found[i + offset] = piece.values[i];
  }
  return found;
}

/** Draws; `look` has series, from, to, on, off, onsets [{at, isEvent}], note; or hours, and no series. */
export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.image = document.createElement("canvas");
    this.look = null;
    this.isDue = false;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.draw());
  }

  show(look) {
    this.look = look;
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => { this.isDue = false; this.draw(); });
  }

  draw() {
    const { canvas } = this, ratio = devicePixelRatio, { width, height } = canvas.getBoundingClientRect();
    if (!width) return;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    const pen = (this.pen = canvas.getContext("2d")), style = getComputedStyle(canvas);
    this.colours = Object.fromEntries(["text", "quiet", "line", "trace", "bad", "accent", "ground"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${style.fontFamily}`;
    const { look } = this, room = height - AXIS - GAP * SHARES.length, sum = SHARES.reduce((a, b) => a + b);
    if (look?.hours) return drawHours(this, look, width, height);
    if (!look?.series) return this.say(look?.note ?? "", width / 2, height / 2);
    this.x = (at) => LEFT + ((at - look.from) / (look.to - look.from)) * (width - LEFT - RIGHT);
    let top = GAP;
    this.boxes = SHARES.map((share) => {
      const box = { top, height: (room * share) / sum, right: width - RIGHT };
      top += box.height + GAP;
      return box;
    });
    this.time(height - AXIS, width);
    this.waveforms();
    this.spectrogram(this.boxes[3]);
    this.probability(this.boxes[4]);
    this.onsets(height - AXIS);
    if (look.note) this.say(look.note, width / 2, this.boxes[1].top + this.boxes[1].height / 2);
  }

  say(text, x, y, align = "center", colour = this.colours.quiet) {
    Object.assign(this.pen, { fillStyle: colour, textAlign: align, textBaseline: "middle" });
    this.pen.fillText(text, x, y);
  }

  line(x1, y1, x2, y2, colour, dash = [], width = 1) {
    const { pen } = this;
    Object.assign(pen, { strokeStyle: colour, lineWidth: width });
    pen.setLineDash(dash);
    pen.beginPath();
    pen.moveTo(x1, y1);
    pen.lineTo(x2, y2);
    pen.stroke();
    pen.setLineDash([]);
  }

  time(bottom, width) {
    const { from, to } = this.look, most = (width - LEFT) / 70;
    const step = [5, 10, 15, 30, 60, 120].find((seconds) => (to - from) / seconds < most) ?? 300;
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      this.line(this.x(at), GAP, this.x(at), bottom, this.colours.line);
      if (this.x(at) < width - 30) this.say(clock(at), this.x(at), bottom + AXIS / 2);
    }
  }

  waveforms() {
    for (const [component, pieces] of this.look.series.pieces) {
      const box = this.boxes[ROWS[component]];
      if (!box) continue;
      const columns = this.columns(pieces), [low, high] = extremes(columns);
      if (low > high) continue;
      const middle = (low + high) / 2, half = Math.max((high - low) / 2, 1e-9);
      const y = (value) => box.top + box.height / 2 - ((value - middle) / half) * (box.height / 2 - 2);
      this.pen.strokeStyle = this.colours.trace;
      this.pen.lineWidth = 1;
      this.pen.beginPath();
      let before = -2;
      for (const [x, [least, most]] of columns) {
        if (x - before > 4) this.pen.moveTo(x, y(most)); // a gap stays one
        else this.pen.lineTo(x, y(most));
        this.pen.lineTo(x, y(least) + 0.5);
        before = x;
      }
      this.pen.stroke();
      this.say(component, 10, box.top + 10, "left", this.colours.text);
      this.say(`±${short(half)}`, 10, box.top + 25, "left");
    }
    this.boxes.slice(0, 3).forEach((box, row) => {
      if (!this.look.note && ![...this.look.series.pieces.keys()].some((component) => ROWS[component] === row)) {
        this.say("ZNE"[row], 10, box.top + 10, "left", this.colours.text);
        this.say("no samples", LEFT + 6, box.top + 10, "left");
      }
    });
  }

  /** Pixel -> least and most. */
  columns(pieces) {
    const { from, to } = this.look, columns = new Map();
    for (const { from: start, rate, values } of pieces) {
      const first = Math.max(0, Math.ceil((from - start) * rate)), last = Math.min(values.length, Math.floor((to - start) * rate) + 1);
      for (let i = first; i < last; i++) {
        const x = Math.round(this.x(start + i / rate)), value = values[i], column = columns.get(x);
        if (!column) columns.set(x, [value, value]);
        else if (value < column[0]) column[0] = value;
        else if (value > column[1]) column[1] = value;
      }
    }
    return columns;
  }

  spectrogram(box) {
    const { from, to, series } = this.look, made = series.spectrogram(from, to);
    this.say("Z, Hz", 10, box.top + 10, "left", this.colours.text);
    const levels = made?.frames.filter(Boolean) ?? [];
    if (!levels.length) return;
    const sorted = levels.flatMap((frame) => Array.from(frame.filter((_, i) => i % 4 === 0))).sort((a, b) => a - b);
    const low = sorted[Math.floor(sorted.length * 0.15)], high = sorted[Math.floor(sorted.length * 0.998)];
    const { image } = this, pen = Object.assign(image, { width: made.frames.length, height: FRAME / 2 }).getContext("2d");
    const pixels = pen.createImageData(image.width, image.height);
    made.frames.forEach((frame, column) => frame?.forEach((level, row) => {
      const at = 4 * ((image.height - 1 - row) * image.width + column);
      pixels.data.set([...colour((level - low) / (high - low || 1)), 255], at);
    }));
    pen.putImageData(pixels, 0, 0);
    const left = this.x(made.from - made.step / 2), width = this.x(made.from + (image.width - 0.5) * made.step) - left;
    this.pen.imageSmoothingEnabled = false;
    this.pen.drawImage(image, left, box.top, width, box.height);
    for (const hertz of [made.top / 2, made.top]) this.say(short(hertz), LEFT - 6, box.top + 10 + (box.height - 10) * (1 - hertz / made.top), "right");
  }

  probability(box) {
    const y = (probability) => box.top + (1 - probability) * (box.height - 4) + 2, { series, from, to, on, off } = this.look;
    this.say("prob.", 10, box.top + box.height - 8, "left", this.colours.text);
    for (const value of [0, 1]) this.line(LEFT, y(value), box.right, y(value), this.colours.line);
    for (const [value, dash, name] of [[on, [6, 4], "on"], [off, [2, 3], "off"]]) {
      if (value == null) continue;
      this.line(LEFT, y(value), box.right, y(value), this.colours.quiet, dash);
      this.say(`${name} ${value.toFixed(2)}`, LEFT - 6, y(value), "right");
    }
    Object.assign(this.pen, { strokeStyle: this.colours.accent, lineWidth: 1.5 });
    this.pen.beginPath();
    let before = null;
    for (const [at, probability] of series.windows) {
      if (at < from || at > to) continue;
      this.pen[before === null || at - before > 5 ? "moveTo" : "lineTo"](this.x(at), y(probability));
      before = at;
    }
    this.pen.stroke();
  }

  onsets(bottom) {
    for (const { at, isEvent } of this.look.onsets) {
      if (at < this.look.from || at > this.look.to) continue;
      const x = this.x(at);
      this.line(x, GAP, x, bottom, this.colours.bad, isEvent ? [] : [3, 3], isEvent ? 2 : 1);
      if (isEvent) this.say("event", x + 5, this.boxes[0].top + 5, "left", this.colours.bad);
    }
  }
}

function extremes(columns) {
  let low = Infinity, high = -Infinity;
  for (const [least, most] of columns.values()) {
    low = Math.min(low, least);
    high = Math.max(high, most);
  }
  return [low, high];
}

const short = (value) => (value >= 10000 ? `${(value / 1000).toFixed(0)}k` : value >= 10 ? value.toFixed(0) : value.toPrecision(2));
