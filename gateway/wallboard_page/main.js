// Signing in, the connection's state, the theme; figures.js and charts.js show what arrives.

import { Charts } from "./charts.js";
import { Figures } from "./figures.js";
import { Stream } from "./stream.js";

const KEY = "wallboard-token";
const THEME = "wallboard-theme";
const THEMES = ["auto", "light", "dark"];
const HANDED_OVER = "#token=";

const at = (id) => document.getElementById(id);
const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit",
});

let stream = null;
let lostSince = null;
let charts = null;
let figures = null;

function say(text) {
  // Only what changes the picture is spoken: figures that move all the time would never be silent.
  at("announcer").textContent = text;
}

function claims(token) {
  try {
    const middle = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(atob(middle));
  } catch {
    return {};
  }
}

function signIn(token) {
  const role = claims(token).role;
  // The gateway decides; this only says it in words.
  if (role !== undefined && role !== "supervisor") {
    askForToken("The wallboard is for supervisors; this token has another role.");
    return;
  }
  sessionStorage.setItem(KEY, token);
  at("sign-in").hidden = true;
  at("board").hidden = false;
  at("token").value = "";
  charts ??= new Charts();
  figures ??= new Figures(say);
  stream = new Stream(token, {
    live,
    lost,
    refused: askForToken,
    figures(name, data) {
      if (name === "history") {
        charts.show(data.samples);
        figures.hour(data.samples);
      } else {
        figures.show(name, data);
      }
    },
  });
  stream.open();
}

function askForToken(problem = "") {
  stream?.close();
  stream = null;
  sessionStorage.removeItem(KEY);
  at("board").hidden = true;
  at("sign-in").hidden = false;
  at("sign-in-problem").textContent = problem;
  at("token").focus();
}

function live() {
  if (lostSince !== null) say("Connected again.");
  lostSince = null;
  connection("live", "Live");
}

function lost() {
  if (lostSince === null) {
    lostSince = new Date();
    say("The connection is lost; figures are no longer live.");
  }
  connection("lost", `Not live since ${clock.format(lostSince)}`);
}

function connection(state, text) {
  const pill = at("connection");
  if (pill.dataset.state !== state) pill.dataset.state = state;
  if (at("connection-text").textContent !== text) at("connection-text").textContent = text;
  at("board").classList.toggle("stale", state === "lost");
}

function theme(name) {
  localStorage.setItem(THEME, name);
  document.documentElement.dataset.theme = name;
  at("theme").textContent = `Theme: ${name}`;
  charts?.redraw();
}

function handedOver() {
  if (!location.hash.startsWith(HANDED_OVER)) return null;
  const token = decodeURIComponent(location.hash.slice(HANDED_OVER.length));
  // Out of the address bar and the history before anything else.
  history.replaceState(null, "", location.pathname);
  return token;
}

at("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(at("token").value.trim());
});
at("sign-out").addEventListener("click", () => askForToken());
at("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme;
  theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts?.redraw());
addEventListener("hashchange", () => {
  const token = handedOver();
  if (token !== null) {
    stream?.close();
    signIn(token);
  }
});
setInterval(() => {
  at("clock").textContent = clock.format(new Date());
  figures?.tick();
}, 1000);
at("clock").textContent = clock.format(new Date());

const known = localStorage.getItem(THEME);
theme(THEMES.includes(known) ? known : "auto");
const token = handedOver() ?? sessionStorage.getItem(KEY);
if (token) signIn(token);
else askForToken();
