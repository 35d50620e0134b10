// The page: asks for its document every two seconds while somebody looks, shows it, and listens to the keyboard.

import { h, render } from "./render.js";
import { age } from "./words.js";
import { view } from "./views.js";

const PAUSE = 2000;
const element = (id) => document.getElementById(id);
const path = location.pathname.split("/").filter((part) => part !== "").map(decodeURIComponent);
const page = view(path);
let newest = null;
let unanswered = null;

function draw() {
  const search = element("search").value.trim().toLowerCase();
  render(element("banners"), banners());
  if (!newest) return;
  render(element("world"), newest.world ?? "no answer yet", state());
  if (newest.page) render(element("page"), page.show(newest, { search, sorted: draw }));
  else if (newest.world) render(element("page"), h("h1", {}, page.title), h("p", {}, "There is no such thing in this mesh, or not any more."));
}

// How old the figures are, once that is more than a round or two.
function state() {
  const old = newest.now - newest.asked;
  return newest.asked && old > 3 * newest.every + PAUSE ? `, as it was ${age(old)} ago` : "";
}

function banners() {
  const lines = [];
  if (unanswered) lines.push(["bad", `No answer from this page's own server: \`gamut up\` or \`gamut dash\` has ended (${unanswered}).`]);
  else if (newest?.problem) lines.push(["bad", `The mesh can't be asked: ${newest.problem}`]);
  for (const { name, pod, ready, died_of: words } of newest?.components ?? []) {
    if (!ready) lines.push(["bad", `${name}${pod ? ` (${pod})` : ""} isn't ready${words ? `: ${words}` : ""}`]);
  }
  for (const problem of newest?.problems ?? []) lines.push(["bad", problem]);
  for (const what of newest?.waiting_for ?? []) lines.push(["doubtful", `waiting for ${what}`]);
  for (const note of newest?.notes ?? []) lines.push(["doubtful", note]);
  const shown = lines.slice(0, 8).map(([tone, text]) => h("div", { class: `banner ${tone}` }, text));
  return [shown, lines.length > 8 ? h("p", { class: "faint" }, `and ${lines.length - 8} more: \`gamut status\` has them all`) : null];
}

async function ask() {
  try {
    const answer = await fetch(`/api/${page.document}`);
    if (!answer.ok) throw new Error(await answer.text());
    newest = await answer.json();
    unanswered = null;
  } catch (error) {
    unanswered = error.message;
  }
  draw();
}

async function forEver() {
  for (;;) {
    if (!document.hidden) await ask();
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

// Links and buttons of the page one after the other, as the Tab key would go but within the page.
function step(forward) {
  const all = [...element("page").querySelectorAll("a, button")];
  const here = all.indexOf(document.activeElement);
  const next = here < 0 ? all.find((one) => one.localName === "a") : all[here + (forward ? 1 : -1)];
  next?.focus();
}

document.addEventListener("keydown", (event) => {
  const search = element("search");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && document.activeElement === search) {
    search.value = "";
    draw();
    search.blur();
  } else if (event.key === "/" && document.activeElement !== search) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    step(event.key === "ArrowDown");
  }
});

document.addEventListener("visibilitychange", () => document.hidden || ask());
element("search").addEventListener("input", draw);
element("search").hidden = path.length > 1;
document.title = `${page.title} – gamut`;
const current = { services: "/", routes: "/routes", pods: "/pods" }[path[0] ?? "services"];
document.querySelector(`nav a[href="${current}"]`)?.setAttribute("aria-current", "page");
forEver();
