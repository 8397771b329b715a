// Small things that every part of the page uses.

export const byId = (id) => document.getElementById(id);

/** An element: properties (class, events as functions, the rest as attributes), then children. Text is never read as HTML. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Only what changed is touched: a table of 200 stations is told anew every two seconds. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const shortName = (source) => {
  const [network, station, location, band, instrument] = source.replace("FDSN:", "").split("_");
  return [network, station, location, band && band + (instrument ?? "")].filter(Boolean).join(".");
};

export const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);

export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  return seconds < 200000 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

const PATIENCE_MS = 10000; // a browser that has too many streams open asks nothing more, and says nothing either

/** The server's answer; an error with its words otherwise. */
export async function ask(path, method = "GET", content = undefined) {
  const body = content === undefined ? undefined : JSON.stringify(content);
  const headers = { "Content-Type": "application/json" }, signal = AbortSignal.timeout(PATIENCE_MS);
  const answer = await fetch(path, { method, body, headers, signal });
  const told = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(told.error), { status: answer.status });
  return told;
}

const NAME = "quake-operator";
export const operator = () => localStorage.getItem(NAME) ?? "";
export const remember = (name) => localStorage.setItem(NAME, name);
