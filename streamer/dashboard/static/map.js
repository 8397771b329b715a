// Where stations stand and which of them saw an alert; behind them coastlines, where the build could fetch them.

import { byId, shortName } from "./dom.js";
import { isListed, SHAPES, words } from "./stations.js";

const MARGIN = 36, APART = 70; // pixels: at the edge; between lines of the grid
const LETTER = 7, LINE = 12; // pixels: of a name
const LEAST = 0.2; // degrees: what the map shows at the least
const COARSE = 150; // pixels a degree: closer than this, coastlines of 1:110 million lead astray
const NAMED = 30; // more stations than this are told by name only where something is to be said of them
const LATELY_S = 300;
const STEPS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 90]; // degrees
const LENGTHS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]; // kilometres
const KM = 111.2; // a degree of latitude
const TOWARDS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const sheet = byId("map-view"), marks = new Map();
let stations = {}, chosen = null, choose = null, listed = [], shown = null, view = null;
let arcs = [], asked = false;

/** Stations whose places are known; no map where there is none. `pick` hears the name of one that was chosen. */
export function showMap(state, name, pick) {
  stations = Object.fromEntries(Object.entries(state.stations).filter(([, one]) => one.latitude != null && one.longitude != null));
  [chosen, choose] = [name, pick];
  draw();
}

/** Of the list: their stations are ringed for a while. */
export function setAlerts(alerts) {
  listed = alerts;
  draw();
}

/** The one that is looked at, instead of those of the list; null: none. */
export function setShown(alert) {
  shown = alert;
  draw();
}

function draw() {
  const names = Object.keys(stations);
  byId("map").hidden = !names.length;
  const { width, height } = sheet.getBoundingClientRect();
  if (!names.length || !width) return;
  if (!asked) fetchCoast();
  const seen = names.filter(isListed), fitted = fit((seen.length ? seen : names).map((name) => stations[name]), width, height);
  if (fitted.key !== view?.key) {
    view = fitted;
    drawGround(width, height);
  }
  const onsets = shown ? onsetsOf(shown) : lately();
  for (const [name, mark] of marks) if (!(name in stations)) { mark.group.remove(); marks.delete(name); }
  const rank = (name) => 2 * (name === chosen) + onsets.has(name), told = [];
  for (const name of names.sort((a, b) => rank(b) - rank(a))) place(name, onsets.get(name), rank(name) > 0 || seen.length <= NAMED, told);
  byId("map-note").textContent = shown ? "seconds after the first onset" : onsets.size ? "ringed: onset within 5 min; dotted: alone" : "";
  sheet.setAttribute("aria-label", `Map of ${names.length} stations; arrow keys choose the next one that way. `
    + (chosen in stations ? `Chosen: ${shortName(chosen)}, ${words(stations[chosen])}` : "None is chosen"));
}

// -- stations -------------------------------------------------------------------------------------------------------------------

/** Station -> {isEvent, text}. */
function onsetsOf(alert) {
  const after = (station) => (Date.parse(station.onset) - Date.parse(alert.onset)) / 1000;
  return new Map(alert.stations.map((station) => [station.source_id, { isEvent: alert.kind === "event", text: ` +${after(station).toFixed(1)}` }]));
}

function lately() {
  const onsets = new Map();
  for (const alert of listed) {
    for (const { source_id: name, onset } of alert.status === "cancelled" || alert.muted ? [] : alert.stations) {
      const isEvent = alert.kind === "event", newest = stations[name]?.newest_s;
      const isNew = newest && newest - Date.parse(onset) / 1000 < LATELY_S;
      if (isNew && (isEvent || !onsets.has(name))) onsets.set(name, { isEvent, text: "" });
    }
  }
  return onsets;
}

/** `told`: boxes of names, none of which this one may cover. */
function place(name, onset, isNamed, told) {
  if (!marks.has(name)) marks.set(name, added(name));
  const { group, shape, label, title } = marks.get(name), station = stations[name];
  const [x, y] = [view.x(station.longitude), view.y(station.latitude)], isChosen = name === chosen, isLeft = x > view.width - 80;
  group.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
  group.setAttribute("class", [station.condition, onset ? (onset.isEvent ? "saw" : "saw alone") : "", isChosen ? "chosen" : "", station.muted ? "muted" : ""].join(" "));
  shape.textContent = SHAPES[station.condition];
  title.textContent = `${shortName(name)}: ${words(station)}`;
  const text = name.split("_")[1] + (onset?.text ?? ""), wide = LETTER * text.length, left = isLeft ? x - wide : x;
  const isFree = isNamed && !told.some((box) => left < box.right && left + wide > box.left && Math.abs(y - box.y) < LINE);
  if (isFree) told.push({ left, right: left + wide, y });
  label.textContent = isFree ? text : "";
  label.setAttribute("x", isLeft ? -16 : 16);
  label.setAttribute("text-anchor", isLeft ? "end" : "start");
}

function added(name) {
  const group = make("g"), shape = make("text", { class: "shape" }), label = make("text", { class: "label" }), title = make("title");
  group.append(title, make("circle", { class: "halo", r: 12 }), make("circle", { class: "ring", r: 9 }), shape, label);
  group.addEventListener("click", () => choose(name));
  byId("map-stations").prepend(group);
  return { group, shape, label, title };
}

sheet.addEventListener("keydown", (pressed) => {
  const towards = TOWARDS[pressed.key];
  if (!towards || !view) return;
  pressed.preventDefault();
  const from = stations[chosen], [dx, dy] = towards;
  const reached = Object.entries(stations).filter(([name]) => name !== chosen && isListed(name)).map(([name, station]) => {
    const x = from ? view.x(station.longitude) - view.x(from.longitude) : 1, y = from ? view.y(station.latitude) - view.y(from.latitude) : 1;
    return { name, along: x * dx + y * dy, beside: Math.abs(x * dy - y * dx) };
  }).filter(({ along, beside }) => !from || (along > 0 && along >= beside));
  const next = reached.sort((a, b) => a.along + 2 * a.beside - b.along - 2 * b.beside)[0];
  if (next) choose(next.name);
});

// -- the ground -----------------------------------------------------------------------------------------------------------------

const wrapped = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;

/** A projection that shows all of these: plate carrée, true to scale in its middle, which lies where no gap of longitudes is widest. */
function fit(places, width, height) {
  const easts = places.map((one) => one.longitude).sort((a, b) => a - b), norths = places.map((one) => one.latitude);
  const gaps = easts.map((east, i) => (easts[i + 1] ?? easts[0] + 360) - east), widest = gaps.indexOf(Math.max(...gaps));
  const [low, high] = [Math.min(...norths), Math.max(...norths)], wide = 360 - gaps[widest];
  const north = (low + high) / 2, east = easts[(widest + 1) % easts.length] + wide / 2;
  const squeeze = Math.max(Math.cos((north * Math.PI) / 180), 0.1);
  const scale = Math.min((width - 2 * MARGIN) / Math.max(wide * squeeze, LEAST), (height - 2 * MARGIN) / Math.max(high - low, LEAST));
  return {
    key: [width, height, east, north, scale, arcs.length].join(), width, height, east, north, squeeze, scale,
    x: (longitude) => width / 2 + wrapped(longitude - east) * squeeze * scale,
    y: (latitude) => height / 2 - (latitude - north) * scale,
  };
}

function drawGround(width, height) {
  sheet.setAttribute("viewBox", `0 0 ${width} ${height}`);
  byId("map-grid").replaceChildren(...grid());
  byId("map-coast").setAttribute("d", outline(false));
  byId("map-borders").setAttribute("d", outline(true));
  const length = LENGTHS.findLast((km) => (km / KM) * view.scale < width / 4) ?? LENGTHS[0], right = 12 + (length / KM) * view.scale;
  byId("map-bar").setAttribute("d", `M12 ${height - 14}v5H${right}v-5`);
  Object.assign(byId("map-length"), { textContent: `${length} km` }).setAttribute("y", height - 18);
}

/** Meridians and parallels, with their degrees at the edge. */
function grid() {
  const step = STEPS.find((degrees) => degrees * view.scale * view.squeeze > APART) ?? STEPS.at(-1), lines = [];
  const half = { east: Math.min(view.width / 2 / view.scale / view.squeeze, 180), north: view.height / 2 / view.scale };
  const told = (degrees, [plus, minus]) => `${Math.abs(degrees).toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0)}°${degrees % 180 === 0 ? "" : degrees < 0 ? minus : plus}`;
  for (let i = Math.ceil((view.east - half.east) / step); i * step < view.east + half.east; i++) {
    const x = view.width / 2 + (i * step - view.east) * view.squeeze * view.scale;
    lines.push(make("path", { d: `M${x} 0V${view.height}` }), make("text", { x: x + 3, y: 10 }, told(wrapped(i * step), "EW")));
  }
  for (let i = Math.ceil(Math.max(view.north - half.north, -90) / step); i * step <= Math.min(view.north + half.north, 90); i++) {
    const y = view.y(i * step), isFree = y < view.height - 36; // the scale's bar lies below
    lines.push(make("path", { d: `M0 ${y}H${view.width}` }), make("text", { x: 3, y: y - 3 }, isFree ? told(i * step, "NS") : ""));
  }
  return lines;
}

function outline(isBorder) {
  if (view.scale > COARSE) return "";
  const parts = [];
  for (const arc of arcs) {
    let before = null;
    for (const [longitude, latitude] of arc.isBorder === isBorder ? arc.points : []) {
      const x = view.x(longitude), isTorn = before === null || Math.abs(x - before) > 180 * view.squeeze * view.scale;
      parts.push(`${isTorn ? "M" : "L"}${x.toFixed(1)} ${view.y(latitude).toFixed(1)}`);
      before = x;
    }
  }
  return parts.join("");
}

/** TopoJSON: each line once, in steps of a grid; one that two countries have is a border. */
async function fetchCoast() {
  asked = true;
  const answer = await fetch("coastlines.json").catch(() => null);
  if (answer?.status !== 200) return;
  const { arcs: coded, objects, transform: { scale, translate } } = await answer.json(), used = new Map();
  for (const number of objects.countries.geometries.flatMap((country) => country.arcs?.flat(Infinity) ?? [])) {
    const arc = number < 0 ? ~number : number;
    used.set(arc, (used.get(arc) ?? 0) + 1);
  }
  arcs = coded.map((steps, number) => {
    let x = 0, y = 0;
    const points = steps.map(([dx, dy]) => [(x += dx) * scale[0] + translate[0], (y += dy) * scale[1] + translate[1]]);
    return { points, isBorder: used.get(number) > 1 };
  });
  draw();
}

function make(tag, properties = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

new ResizeObserver(draw).observe(sheet);
byId("stations-filter").addEventListener("input", draw);
