// The list of sessions. The newest page is kept up to date; an older one is not.

import { Feed } from "./api.js";
import { choices } from "./choices.js";
import { at, h, say, show, table } from "./dom.js";
import { OVER, STATES, TONES, UNDER_WAY, ago, duration, many, moment, sayFailure } from "./words.js";

const LIMIT = 50;
const form = at("filter");
const asked = new URLSearchParams(location.search);
let cursor = asked.get("cursor") ?? "";

for (const state of [...UNDER_WAY, ...OVER]) at("state").append(h("option", { value: state }, STATES[state]));
for (const name of ["text", "state", "since_s"]) form.elements[name].value = asked.get(name) ?? "";
for (const select of [at("state"), at("since")]) if (select.selectedIndex < 0) select.selectedIndex = 0;
at("client").dataset.wanted = asked.get("client") ?? "";

function query() {
  const wanted = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value.trim()) wanted.set(name, value.trim());
  if (at("client").dataset.wanted) wanted.set("client", at("client").dataset.wanted);
  if (cursor) wanted.set("cursor", cursor);
  return wanted;
}

const address = () => {
  const wanted = query();
  wanted.set("limit", LIMIT);
  return `/dashboard/api/sessions?${wanted}`;
};

function look() {
  history.replaceState(null, "", query().size ? `?${query()}` : location.pathname);
  feed.about(address());
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  cursor = "";
  look();
});
for (const select of form.querySelectorAll("select")) {
  select.addEventListener("change", () => {
    delete select.dataset.wanted;
    cursor = "";
    look();
  });
}
at("older").addEventListener("click", () => go(at("older").dataset.cursor));
at("newest").addEventListener("click", () => go(""));

function go(to) {
  cursor = to;
  look();
  at("main").focus();
}

function display({ sessions, next_cursor: next, at_ms: now, clients }) {
  choices(at("client"), clients);
  at("older").hidden = !next;
  at("older").dataset.cursor = next ?? "";
  at("newest").hidden = !cursor;
  const filtered = [...query().keys()].some((name) => name !== "cursor");
  say(at("count"), counted(sessions.length, next, filtered));
  show(at("list"), [sessions, Math.floor(now / 30_000), filtered], () => (sessions.length ? list(sessions, now) : empty(filtered, next)));
}

function counted(count, next, filtered) {
  if (count === 0) return next ? "Nothing among the 10,000 sessions that were looked at; “Older” looks on." : filtered ? "Nothing found." : "";
  const older = next ? ", and there are older ones" : "";
  return `${many(count, "session")}${cursor ? "" : ", the newest first"}${older}.`;
}

function empty(filtered, next) {
  if (next) return null;
  if (filtered) return h("p", { class: "empty" }, "No session is like that. An ended one is kept for a day, unless USHER_RETENTION_S says otherwise.");
  return h("p", { class: "empty" }, "There is no session yet. ", h("a", { href: "/", "data-key": "try" }, "Start one"), ", or send a request to ", h("code", {}, "POST /api/v1/dispatches"), ".");
}

const list = (sessions, now) => table("Sessions", ["Room", "State", "Asked for", "Time to join", "Agent", "Client"], sessions.map((each) => row(each, now)));

function row(session, now) {
  const { dispatch_id: id, state, failure_reason: reason, generation } = session;
  const because = reason && ["failed", "waiting", "cancelled"].includes(state) ? h("small", {}, sayFailure(reason)) : null;
  return [
    [h("a", { href: `/dashboard/sessions/${id}`, "data-key": id }, session.room_name), h("small", { class: "id" }, id)],
    [h("span", { class: "badge", "data-tone": TONES[state] ?? "main" }, STATES[state] ?? state), because],
    h("time", { datetime: new Date(session.created_at_ms).toISOString(), title: moment(session.created_at_ms) }, ago(session.created_at_ms, now)),
    [duration(session.time_to_join_ms), generation > 1 ? h("small", {}, `attempt ${generation}`) : null],
    [session.agent_name, session.container ? h("small", {}, session.container) : null],
    session.client_id,
  ];
}

const feed = new Feed(address(), display);
