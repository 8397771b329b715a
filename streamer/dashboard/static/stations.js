// The table of stations: rows stay where they are, and only what changed is written.

import { byId, duration, make, setText, shortName } from "./dom.js";

export const SHAPES = { ok: "●", late: "◐", unused: "▲", silent: "■", disconnected: "✕", waiting: "○" };
const WORDS = { ok: "flowing", late: "late", unused: "not used", silent: "silent", disconnected: "disconnected", waiting: "no data yet" };

const rows = new Map();

export function words(station) {
  const why = station.reasons.length ? `: ${station.reasons.join(", ")}` : "";
  const muted = station.muted ? " · muted" : "";
  return WORDS[station.condition] + why + muted;
}

/** Whether the filter lets it through. */
export const isListed = (name) => !rows.get(name)?.line.hidden;

/** `choose` hears the name of the station that was clicked. */
export function showStations(state, chosen, choose) {
  const body = byId("stations-rows"), names = Object.keys(state.stations);
  for (const [name, row] of rows) if (!(name in state.stations)) { row.line.remove(); rows.delete(name); }
  const on = Math.min(...state.daemons.map((daemon) => daemon.on), 1);
  names.forEach((name, place) => {
    if (!rows.has(name)) rows.set(name, added(name, choose));
    const row = rows.get(name);
    if (body.children[place] !== row.line) body.insertBefore(row.line, body.children[place] ?? null);
    update(row, state.stations[name], name === chosen, on);
  });
  byId("stations-none").hidden = names.length > 0;
  const wrong = names.filter((name) => state.stations[name].condition !== "ok").length;
  setText(byId("stations-count"), names.length ? `${names.length}${wrong ? ` · ${wrong} not flowing` : ""}` : "");
  filter();
}

function added(name, choose) {
  const shape = make("span", { class: "shape", "aria-hidden": "true" });
  const button = make("button", { type: "button", class: "plain" }, shortName(name));
  const [state, latency, probability] = [make("td", { class: "state" }), make("td", { class: "number" }), make("td", { class: "number" })];
  const line = make("tr", { click: () => choose(name) }, make("td", {}, shape, button), state, latency, probability);
  return { line, shape, state, latency, probability, name: shortName(name).toLowerCase() };
}

function update(row, station, isChosen, on) {
  const kind = [station.condition, station.muted ? "muted" : "", isChosen ? "chosen" : ""].join(" ").trim();
  if (row.line.className !== kind) row.line.className = kind;
  setText(row.shape, SHAPES[station.condition]);
  setText(row.state, words(station));
  row.state.title = Object.entries(station.unused).map(([reason, count]) => `${reason} ${count}`).join(", ");
  setText(row.latency, duration(station.latency_s));
  setText(row.probability, station.probability == null ? "–" : station.probability.toFixed(2));
  row.probability.classList.toggle("high", station.probability >= on);
}

function filter() {
  const text = byId("stations-filter").value.toLowerCase();
  for (const row of rows.values()) {
    const isHidden = !(row.name.includes(text) || row.state.textContent.includes(text));
    if (row.line.hidden !== isHidden) row.line.hidden = isHidden;
  }
}
byId("stations-filter").addEventListener("input", filter);
