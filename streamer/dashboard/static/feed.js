// The one connection to the server, and whether what is shown can be trusted.

import { ask, byId, clock, duration, make } from "./dom.js";

const SILENT_MS = 6000; // states come every two seconds
const DEAD_MS = 15000; // nobody tells of a connection that a sleeping machine or a router forgot
const AGAIN_MS = 2000;
const FIRST_MS = 200; // a token may be wanted
const FOUND_MS = 8000;

const listeners = new Map();
let source = null;
let wanted = null; // the station that was chosen
let station = null; // the one that is connected
let triedAt = 0;
let isCurrent = true; // the list of alerts
let heard = performance.now(); // when a message came last
let heardAt = Date.now();
let state = null;
let lostSince = null;
let timer = 0;

/** `call` hears every event of that name: state, alert, samples, window, and `connected`. */
export function on(name, call) {
  listeners.set(name, [...(listeners.get(name) ?? []), call]);
}

const tell = (name, content) => (listeners.get(name) ?? []).forEach((call) => call(content));

/** Connects, and listens to a station's samples too where one is named. */
export function connect(subject = wanted) {
  wanted = subject;
  open(subject);
}

function open(subject) {
  station = subject;
  triedAt = performance.now();
  clearTimeout(timer);
  source?.close();
  const made = (source = new EventSource("api/events" + (station ? `?station=${encodeURIComponent(station)}` : "")));
  made.addEventListener("open", () => tell("connected"));
  for (const name of ["state", "alert", "samples", "window"]) {
    made.addEventListener(name, (message) => {
      heard = performance.now();
      heardAt = Date.now();
      const content = JSON.parse(message.data);
      if (name === "state") state = content;
      tell(name, content);
      if (name === "state" && wanted !== station && wanted in content.stations) open(wanted); // it is back
    });
  }
  made.addEventListener("error", () => {
    made.close();
    if (made === source) timer = setTimeout(again, state ? AGAIN_MS : FIRST_MS);
  });
}

async function again() {
  const mine = source;
  let subject = wanted;
  try {
    const told = await ask("api/state");
    if (wanted && !(wanted in told.stations)) subject = null;
  } catch (error) {
    if (error.status === 401) return signIn();
  }
  if (mine === source) open(subject);
}

export function signIn() {
  if (!byId("sign-in").open) byId("sign-in").showModal();
}

/** Whether the list of alerts is what the server has. */
export function setCurrent(is) {
  isCurrent = is;
}

// A browser keeps some six connections to a server: of alerts in tabs of their own only the one in front listens.
document.addEventListener("visibilitychange", () => {
  if (document.hidden && location.hash.startsWith("#/alert/")) return source?.close();
  if (document.hidden || source?.readyState !== EventSource.CLOSED) return;
  heard = performance.now();
  connect();
});

function fault() {
  if (performance.now() - heard > SILENT_MS || source?.readyState !== EventSource.OPEN) {
    if (performance.now() - heard < AGAIN_MS) return null; // another station was chosen
    return `CONNECTION LOST — what you see is from ${clock(heardAt / 1000)} UTC`;
  }
  if (!state) return null;
  if (!state.redis) return "REDIS NOT REACHABLE — alerts do not arrive here";
  if (!isCurrent) return "ALERTS NOT CURRENT — the list could not be asked for";
  if (!state.beating) return "NO DAEMON IS WATCHING — silence does not mean that there was no earthquake";
  return null;
}

function watch() {
  const banner = byId("banner"), text = fault(), now = performance.now();
  if (now - Math.max(heard, triedAt) > DEAD_MS && !document.hidden && !byId("sign-in").open) connect();
  if (text) {
    lostSince ??= now;
    show(banner, `${text} (${duration((now - lostSince) / 1000)})`, false);
  } else if (lostSince !== null) {
    show(banner, `Found again after ${duration((now - lostSince) / 1000)}`, true);
    lostSince = null;
    setTimeout(() => lostSince ?? (banner.hidden = true), FOUND_MS);
  }
  document.body.classList.toggle("lost", Boolean(text));
}

function show(banner, text, isFound) {
  banner.hidden = false;
  banner.className = isFound ? "found" : "";
  banner.replaceChildren(make("span", {}, text));
}

setInterval(watch, 500);

byId("sign-in").addEventListener("cancel", (pressed) => pressed.preventDefault());
byId("sign-in").querySelector("form").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const form = submitted.target, told = form.querySelector(".fault");
  try {
    await ask("api/sign-in", "POST", { token: form.elements.token.value });
    told.textContent = "";
    form.reset();
    byId("sign-in").close();
    connect();
  } catch (error) {
    told.textContent = error.message;
  }
});
