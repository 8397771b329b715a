// A day of a station's vertical, an hour a line, as streamer/live/envelope.py packs it.

import { clock } from "./dom.js";

const BIN_S = 5, BINS = 720, ZERO = 2048, STEPS = 66, LINES = 24;
const LEFT = 56, RIGHT = 12, AXIS = 22;
const USUAL = 0.15, MOST = 1; // of a line's height: half the usual width of the trace, and where it is cut off
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const VALUES = new Map([...LETTERS].map((letter, value) => [letter, value]));

/** Least and most of each bin, in counts; null where nothing is known. */
export function decoded(text) {
  const count = (at) => {
    const code = 64 * VALUES.get(text[at]) + VALUES.get(text[at + 1]) - ZERO;
    return Math.sign(code) * (2 ** (Math.abs(code) / STEPS) - 1);
  };
  return Array.from({ length: BINS }, (_, bin) => (VALUES.has(text[4 * bin]) ? [count(4 * bin), count(4 * bin + 2)] : null));
}

/** On a `Chart`; `look` has hours (number since 1970 -> letters) and onsets. All lines have one scale: that of the usual noise. */
export function drawHours(chart, { hours, onsets }, width, height) {
  const lines = Object.entries(hours).map(([hour, text]) => [Number(hour), decoded(text)]), last = Math.max(...lines.map(([hour]) => hour));
  const widths = lines.flatMap(([, bins]) => bins.filter(Boolean).map(([low, high]) => high - low)).sort((a, b) => a - b);
  const high = (height - AXIS) / LINES, scale = (2 * USUAL * high) / (widths[widths.length >> 1] || 1);
  const x = (second) => LEFT + (second / 3600) * (width - LEFT - RIGHT), middle = (hour) => (LINES - 0.5 - (last - hour)) * high;
  const cut = (value) => Math.max(-MOST * high, Math.min(MOST * high, value * scale));
  for (let minute = 0; minute <= 60; minute += 10) {
    chart.line(x(60 * minute), 0, x(60 * minute), height - AXIS, chart.colours.line);
    chart.say(String(minute), x(60 * minute), height - AXIS / 2);
  }
  chart.say("min", 10, height - AXIS / 2, "left");
  for (let hour = last - LINES + 1; hour <= last; hour++) {
    const time = clock(3600 * hour).slice(0, 5), isLabelled = high > 11 || hour % 2 === 0;
    if (isLabelled) chart.say(time === "00:00" ? new Date(3600e3 * hour).toISOString().slice(5, 10) : time, 10, middle(hour), "left");
  }
  chart.pen.lineWidth = Math.max(1, x(BIN_S) - x(0));
  for (const [hour, bins] of lines) {
    chart.pen.strokeStyle = hour % 2 ? chart.colours.trace : chart.colours.accent; // neighbours may overlap
    chart.pen.beginPath();
    bins.forEach((pair, bin) => {
      if (!pair) return;
      const at = x((bin + 0.5) * BIN_S), base = middle(hour);
      chart.pen.moveTo(at, base - cut(pair[1]) - 0.4);
      chart.pen.lineTo(at, base - cut(pair[0]) + 0.4);
    });
    chart.pen.stroke();
  }
  for (const { at, isEvent } of onsets) {
    const hour = Math.floor(at / 3600), reach = isEvent ? 0.9 : 0.5;
    if (hour <= last && hour > last - LINES) {
      const here = x(at - 3600 * hour);
      chart.line(here, middle(hour) - reach * high, here, middle(hour) + reach * high, chart.colours.bad, isEvent ? [] : [2, 2], 2);
    }
  }
}
