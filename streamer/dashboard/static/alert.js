// One alert: its picture, what is known of it, and what operators say of it.

import { ask, byId, make, operator, remember, setText, shortName } from "./dom.js";
import { Chart, Series } from "./chart.js";
import { on } from "./feed.js";
import { setShown } from "./map.js";

const SAY = [["acknowledged", "Seen"], ["earthquake", "Earthquake"], ["false_alarm", "False alarm"], ["withdrawn", "Withdraw"], ["comment", "Comment only"]];
const BEFORE_S = 30, AFTER_S = 60;
const LATER_MS = 15000; // a picture grows for a minute

let shown = null, state = null, station = null, timer = 0;
const canvas = make("canvas", { role: "img" }), chart = new Chart(canvas); // one for all: each would stay for good

export async function showAlert(id) {
  const isOther = id !== shown;
  shown = id;
  byId("alert").hidden = !id;
  byId("live").hidden = byId("alerts").hidden = Boolean(id);
  clearTimeout(timer);
  if (isOther) setShown(null);
  if (!id) return;
  if (isOther) { station = null; byId("alert").replaceChildren(); }
  try {
    const alert = await ask(`api/alerts/${encodeURIComponent(id)}`);
    if (id === shown) fill(alert);
  } catch (error) {
    if (id === shown && isOther) byId("alert").replaceChildren(bar("Alert"), make("p", { class: "none" }, error.message));
  }
  timer = setTimeout(() => showAlert(shown), LATER_MS);
}

const bar = (title, ...more) => make("div", { class: "bar" }, make("a", { href: "#/" }, "← All alerts"), make("h2", { id: "alert-title" }, title), ...more);

function fill(alert) {
  const section = byId("alert");
  if (!section.querySelector("canvas")) build(section, alert);
  const names = alert.stations.map((one) => one.source_id);
  if (!names.includes(station)) station = names[0];
  setText(section.querySelector(".status"), `${alert.status}, revision ${alert.revision}${alert.stale ? ", stale" : ""}${alert.muted ? ", muted" : ""}`);
  section.querySelector(".choice").replaceChildren(...names.map((name) => make("button", {
    type: "button", class: name === station ? "pressed" : "", "aria-pressed": String(name === station), click: () => { station = name; fill(alert); },
  }, shortName(name))));
  section.querySelector(".about").replaceChildren(...about(alert));
  section.querySelector(".said").replaceChildren(...said(alert.marks));
  draw(alert);
  setShown(alert);
}

function build(section, alert) {
  section.replaceChildren(
    bar(`${alert.kind === "event" ? "Event" : "Detection"} ${alert.onset.slice(0, 21).replace("T", " ")} UTC`, make("span", { class: "status quiet" })),
    make("div", { class: "body" },
      make("div", {}, make("div", { class: "choice buttons" }), canvas, make("h3", {}, "What was said"), make("ul", { class: "said" }), marking(alert.id)),
      make("div", { class: "about" })));
}

function draw(alert) {
  const kept = alert.picture?.[station], onset = Date.parse(alert.onset) / 1000, series = kept ? new Series() : null;
  kept?.samples.forEach((piece) => series.addSamples(piece));
  kept?.windows.forEach((window) => series.addWindow(window));
  const own = alert.stations.find((one) => one.source_id === station), daemon = state?.daemons[0];
  canvas.setAttribute("aria-label", `${shortName(station)} around the onset: waveforms, spectrogram, probability`);
  chart.show({
    series, from: onset - BEFORE_S, to: onset + AFTER_S, on: daemon?.on, off: daemon?.off,
    onsets: [{ at: onset, isEvent: alert.kind === "event" }, { at: Date.parse(own.onset) / 1000, isEvent: false }],
    note: series ? "" : "No waveforms: they come a minute after the onset, and are kept for a week (events) or half a day",
  });
}

function about(alert) {
  const facts = [
    ["Probability", alert.probability.toFixed(3)],
    ["Stations", String(alert.stations.length)],
    ["Decided", `${alert.on_time.slice(11, 21)} UTC`],
    ["Closed", alert.off_time ? `${alert.off_time.slice(11, 21)} UTC` : "not yet"],
    ["Data", alert.complete ? "complete" : "with gaps or missing components"],
    ["Latency", `${alert.mode === "live" ? `data ${alert.latency.data_s.toFixed(1)} s, ` : ""}processing ${alert.latency.processing_s.toFixed(2)} s`],
    ["Model", `${alert.model.name} ${alert.model.version}`],
    ["Model file", alert.model.sha256.slice(0, 16)],
    ["Id", alert.id],
  ];
  const list = facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  return [make("h3", {}, "Alert"), make("dl", { class: "facts" }, ...list), ...characterised(alert.characterisation)];
}

function characterised(found) {
  if (!found) return [make("h3", {}, "Size and direction"), make("p", { class: "quiet" }, "The characteriser was not asked.")];
  return [["magnitude", "Magnitude class"], ["azimuth", "Back-azimuth"]].flatMap(([head, title]) => [
    make("h3", {}, title),
    found[head]
      ? make("div", { class: "classes" }, ...Object.entries(found[head]).flatMap(([name, value]) => [
        make("span", {}, name), make("meter", { value, max: 1, "aria-label": name }), make("span", { class: "number" }, `${Math.round(100 * value)} %`)]))
      : make("p", { class: "quiet" }, `Not known: ${found.unknown[head] ?? "no reason is given"}.`),
  ]);
}

function said(marks) {
  if (!marks.length) return [make("li", { class: "quiet" }, "Nothing yet.")];
  const names = Object.fromEntries(SAY);
  return marks.map((mark) => make("li", {}, make("b", {}, names[mark.mark] ?? mark.mark),
    ` · ${mark.by} · ${mark.time.slice(0, 16).replace("T", " ")} UTC`, mark.comment ? make("div", {}, mark.comment) : null));
}

function marking(id) {
  const by = make("input", { name: "by", required: true, maxlength: 64, autocomplete: "name", value: operator() });
  const comment = make("input", { name: "comment", maxlength: 2000 }), told = make("p", { class: "fault", role: "alert" });
  const say = async (mark) => {
    try {
      await ask(`api/alerts/${encodeURIComponent(id)}/marks`, "POST", { mark, by: by.value, comment: comment.value });
      remember(by.value);
      comment.value = told.textContent = "";
      showAlert(id);
    } catch (error) {
      told.textContent = error.message;
    }
  };
  return make("form", { id: "marking", submit: (submitted) => submitted.preventDefault() },
    make("label", {}, "Your name", by), make("label", {}, "Comment", comment),
    make("div", { class: "buttons" }, ...SAY.map(([mark, text]) => make("button", { type: "button", click: () => say(mark) }, text))), told);
}

on("state", (told) => { state = told; });
on("alert", (alert) => { if (alert.id === shown) showAlert(shown); });
