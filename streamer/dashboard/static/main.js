// What belongs together: the feed, the parts of the page, and the address.

import { refresh } from "./alerts.js";
import { showAlert } from "./alert.js";
import { byId, make, setText } from "./dom.js";
import { connect, on } from "./feed.js";
import { choose, chosenStation } from "./live.js";
import { showMap } from "./map.js";
import { showStations } from "./stations.js";

const BEHIND_S = 30;

function route() {
  const [, name, id] = location.hash.split("/");
  showAlert(name === "alert" && id ? decodeURIComponent(id) : null);
}

/** Of all daemons: the worst of each. */
function showHealth({ daemons }) {
  const mode = byId("mode"), worst = (name) => Math.max(0, ...daemons.map((daemon) => daemon.health[name] ?? 0));
  setText(mode, daemons[0]?.mode ?? "");
  mode.classList.toggle("exercise", Boolean(daemons[0]) && daemons[0].mode !== "live");
  const models = [...new Set(daemons.map(({ model }) => `${model.name} ${model.version} (${model.device})`))];
  const facts = [
    ["Daemons", daemons.map((daemon) => daemon.daemon).join(", ") || "none", !daemons.length],
    ["Servers", String(daemons.reduce((sum, daemon) => sum + daemon.servers, 0)), daemons.some((daemon) => !daemon.servers)],
    ["Behind", `${worst("behind_s").toFixed(0)} s`, worst("behind_s") > BEHIND_S || worst("dropping_windows") > 0],
    ["Outbox", String(worst("outbox_depth")), worst("outbox_depth") > 0],
    ["Model", models.join(", ") || "–", false],
  ];
  const list = byId("health");
  if (!list.children.length) list.append(...facts.map(([name]) => make("div", {}, make("dt", {}, name), make("dd"))));
  facts.forEach(([, value, isWrong], place) => {
    list.children[place].classList.toggle("wrong", isWrong);
    setText(list.children[place].lastChild, value);
  });
}

let known = null;

/** Tables and map of what was told last. */
function show(state) {
  known = state;
  showStations(state, chosenStation(), pick);
  showMap(state, chosenStation(), pick);
}

on("state", (state) => {
  showHealth(state);
  show(state);
});
on("alert", refresh);
on("connected", refresh);

function pick(name) {
  choose(name);
  show(known);
  if (location.hash.startsWith("#/alert")) location.hash = "#/";
}

const tick = () => setText(byId("clock"), `${new Date().toISOString().slice(0, 19).replace("T", " ")} UTC`);

tick();
setInterval(tick, 1000);
addEventListener("hashchange", route);
route();
connect();
