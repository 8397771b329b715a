// The one connection to the server, and whether what is shown can be trusted.

import { ask, byId, clock, duration, make } from "./dom.js";

const SILENT_MS = 6000; // states come every two seconds
const AGAIN_MS = 2000;
const FIRST_MS = 200; // a token may be wanted
const FOUND_MS = 8000;

const listeners = new Map();
let source = null;
let station = null;
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
export function connect(subject = station) {
  station = subject;
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
    });
  }
  made.addEventListener("error", () => {
    made.close();
    if (made === source) timer = setTimeout(again, state ? AGAIN_MS : FIRST_MS);
  });
}

async function again() {
  try {
    const told = await ask("api/state");
    if (station && !(station in told.stations)) station = null;
  } catch (error) {
    if (error.status === 401) return void byId("sign-in").showModal();
  }
  connect();
}

function fault() {
  if (performance.now() - heard > SILENT_MS || source?.readyState !== EventSource.OPEN) {
    if (performance.now() - heard < AGAIN_MS) return null; // another station was chosen
    return `CONNECTION LOST — what you see is from ${clock(heardAt / 1000)} UTC`;
  }
  if (!state) return null;
  if (!state.redis) return "REDIS NOT REACHABLE — alerts do not arrive here";
  if (!state.beating) return "NO DAEMON IS WATCHING — silence does not mean that there was no earthquake";
  return null;
}

function watch() {
  const banner = byId("banner"), text = fault(), now = performance.now();
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
