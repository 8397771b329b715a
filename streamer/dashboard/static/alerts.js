// The list of alerts, asked for anew whenever one comes: the server knows which fit the filter.

import { ask, byId, make, shortName } from "./dom.js";
import { setCurrent, signIn } from "./feed.js";
import { setOnsets } from "./live.js";
import { setAlerts } from "./map.js";

const MARKS = { acknowledged: "seen", earthquake: "earthquake", false_alarm: "false alarm", withdrawn: "withdrawn", comment: "comment" };
const SHOWN = 4; // names of stations
const AGAIN_MS = 2000;

const form = byId("alerts-filter");
let timer = 0, asked = 0;

export function refresh() {
  clearTimeout(timer);
  timer = setTimeout(load, 150);
}

async function load() {
  const { kind, status, station, since } = form.elements;
  const query = new URLSearchParams();
  for (const field of [kind, status, station]) if (field.value) query.set(field.name, field.value);
  if (since.value) query.set("since", new Date(Date.now() - since.value * 3600e3).toISOString());
  const mine = ++asked;
  try {
    const alerts = await ask(`api/alerts?${query}`);
    if (mine !== asked) return;
    show(alerts);
    setCurrent(true);
  } catch (error) {
    if (mine !== asked) return;
    setCurrent(false);
    if (error.status === 401) return signIn();
    clearTimeout(timer);
    timer = setTimeout(load, AGAIN_MS);
  }
}

function show(alerts) {
  byId("alerts-rows").replaceChildren(...alerts.map(row));
  byId("alerts-none").hidden = alerts.length > 0;
  const news = alerts.filter((alert) => alert.kind === "event" && !alert.marks.length).length;
  document.title = news ? `(${news}) quake` : "quake";
  setOnsets(alerts);
  setAlerts(alerts);
}

function row(alert) {
  const names = alert.stations.map((station) => shortName(station.source_id));
  const more = names.length > SHOWN ? ` +${names.length - SHOWN}` : "";
  const kind = [alert.kind, alert.muted ? "muted" : "", alert.kind === "event" && !alert.marks.length ? "fresh" : ""].join(" ");
  const said = alert.marks.filter((mark) => mark.mark !== "comment").at(-1);
  const link = make("a", { href: `#/alert/${alert.id}` }, make("span", { class: "year" }, alert.onset.slice(0, 5)),
    alert.onset.slice(5, 19).replace("T", " "), make("span", { class: "tenth" }, alert.onset.slice(19, 21)));
  return make("tr", { class: kind, click: () => { location.hash = `#/alert/${alert.id}`; } },
    make("td", {}, link), make("td", {}, alert.kind), make("td", {}, alert.status + (alert.stale ? ", stale" : "")),
    make("td", {}, names.slice(0, SHOWN).join(" ") + more), make("td", { class: "number" }, alert.probability.toFixed(2)),
    make("td", {}, likeliest(alert.characterisation?.magnitude)), make("td", {}, said ? `${MARKS[said.mark]} · ${said.by}` : ""));
}

function likeliest(classes) {
  if (!classes) return "–";
  const [name, probability] = Object.entries(classes).reduce((a, b) => (b[1] > a[1] ? b : a));
  return `${name} ${Math.round(100 * probability)} %`;
}

form.addEventListener("input", refresh);
form.addEventListener("submit", (submitted) => submitted.preventDefault());
