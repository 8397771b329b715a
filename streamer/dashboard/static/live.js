// The chosen station, as it comes.

import { ask, byId, operator, remember, setText, shortName } from "./dom.js";
import { Chart, Series } from "./chart.js";
import { connect, on } from "./feed.js";
import { words } from "./stations.js";

const chart = new Chart(byId("live-chart"));
const DAY_S = 86400, AGAIN_MS = 30000; // so often the daemon writes
let chosen = null, series = null, state = null, onsets = [], hours = null, timer = 0;

export const chosenStation = () => chosen;

export function choose(name) {
  if (name === chosen) return;
  chosen = name;
  series = new Series();
  hours = null;
  setText(byId("live-title"), shortName(name));
  byId("mute").disabled = false;
  connect(name);
  askForDay();
  show();
}

const isDay = () => Number(byId("live-span").value) === DAY_S;

/** Of the chosen station, and again while it is looked at. */
async function askForDay() {
  clearTimeout(timer);
  if (!chosen || !isDay()) return;
  const name = chosen, told = await ask(`api/helicorder/${encodeURIComponent(name)}`).catch(() => null);
  if (name !== chosen || !isDay()) return;
  hours = told ?? hours;
  show();
  clearTimeout(timer);
  timer = setTimeout(askForDay, AGAIN_MS);
}

/** Onsets of the alerts that are listed, to be drawn at their stations. */
export function setOnsets(alerts) {
  onsets = alerts.flatMap((alert) => alert.stations.map((station) => ({ name: station.source_id, at: Date.parse(station.onset) / 1000, isEvent: alert.kind === "event" })));
  show();
}

function show() {
  if (!chosen) return chart.show({ note: "Choose a station to see its waveforms" });
  const station = state?.stations[chosen], daemon = state?.daemons[0], span = Number(byId("live-span").value);
  const to = series.end || Date.now() / 1000, own = onsets.filter((onset) => onset.name === chosen);
  if (isDay()) {
    const isThere = hours && Object.keys(hours).length;
    chart.show(isThere ? { hours, onsets: own } : { note: hours ? "Nothing of this station's day is kept yet" : "Waiting for the day" });
  } else chart.show({
    series: series.end ? series : null, from: to - span, to, on: daemon?.on, off: daemon?.off,
    onsets: own,
    note: series.end ? "" : "Waiting for samples",
  });
  if (!station) return;
  const told = `${words(station)}, ring ${Math.round(100 * station.fill)} %`;
  setText(byId("live-state"), station.muted ? `${told} until ${station.muted.until.slice(0, 16)}Z by ${station.muted.by}: ${station.muted.why}` : told);
  setText(byId("mute"), station.muted ? "Unmute" : "Mute…");
  const probability = station.probability == null ? "not known" : station.probability.toFixed(2);
  const what = isDay() ? "a day of the vertical, an hour a line" : "waveforms, spectrogram and probability";
  byId("live-chart").setAttribute("aria-label", `${shortName(chosen)}: ${what}; ${told}; probability ${probability}`);
}

on("samples", (piece) => { series?.addSamples(piece); show(); });
on("window", (window) => { series?.addWindow(window); show(); });
on("state", (told) => {
  state = told;
  const names = Object.keys(told.stations);
  byId("live-span").lastElementChild.hidden = !told.daemons.some((daemon) => daemon.helicorder);
  if (!chosen && names.length) choose(names[0]);
  else show();
});
byId("live-span").addEventListener("change", () => { askForDay(); show(); });

const dialog = byId("muting"), form = dialog.querySelector("form");
byId("mute").addEventListener("click", async () => {
  if (state?.stations[chosen]?.muted) return void (await ask(`api/mutes/${encodeURIComponent(chosen)}`, "DELETE"));
  setText(byId("muting-title"), `Mute ${shortName(chosen)}`);
  form.elements.by.value = operator();
  dialog.showModal();
});
form.querySelector(".cancel").addEventListener("click", () => dialog.close());
form.addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const { hours, by, why } = form.elements;
  const until = new Date(Date.now() + hours.value * 3600e3).toISOString();
  try {
    await ask(`api/mutes/${encodeURIComponent(chosen)}`, "PUT", { until, by: by.value, why: why.value });
    remember(by.value);
    why.value = "";
    dialog.close();
  } catch (error) {
    setText(form.querySelector(".fault"), error.message);
  }
});
show();
