// The page of one session: what has happened to it, and why.

import { EVENTS } from "../../client/words.js";
import { Feed } from "./api.js";
import { at, h, say, served, show, table } from "./dom.js";
import { stageTable, timeline } from "./timeline.js";
import { STATES, TONES, ago, duration, moment, sayFailure } from "./words.js";

const ENDED_EVERY_MS = 10_000; // it may be sent again
const id = decodeURIComponent(location.pathname.split("/").at(-1));
const path = `/dashboard/api/sessions/${encodeURIComponent(id)}`;

const BAD = ["failed", "rejected", "agent_lost", "agent_crashed", "foreign_agent", "livekit_unreachable", "waiting"];

function display(session) {
  const zero = session.created_at_ms;
  feed.slower(session.terminal ? ENDED_EVERY_MS : undefined);
  at("found").hidden = false;
  document.title = `${session.room_name}: ${STATES[session.state]} · Usher`;
  say(at("room"), session.room_name);
  show(at("state"), session.state, (state) => h("span", { class: "badge large", "data-tone": TONES[state] ?? "main" }, STATES[state] ?? state));
  explain(session.explanation, toneOf(session));
  show(at("facts"), [session, Math.floor(session.at_ms / 5000)], () => facts(session).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  at("flower").hidden = !session.flower_url;
  if (session.flower_url) at("flower").href = flowerAddress(session.flower_url);
  show(at("chart"), [session.stages, session.attempts], ([stages, attempts]) => timeline(stages, attempts, zero));
  show(at("spans"), session.stages, (stages) => stageTable(stages, zero));
  show(at("attempts"), [session.attempts, session.attempts_dropped], ([list, dropped]) => [
    dropped ? h("p", { class: "empty" }, `${dropped} earlier attempts are not kept.`) : null,
    attempts(list),
  ]);
  show(at("events"), [session.timeline, session.timeline_dropped], ([events, dropped]) => [
    dropped ? h("li", { class: "empty" }, `${dropped} earlier events are not kept.`) : null,
    events.map((event) => eventItem(event, zero)),
  ]);
}

const toneOf = ({ state, attempts }) => (state === "failed" ? "bad" : state === "joined" ? "good" : state === "waiting" || attempts.length > 1 ? "warn" : "idle");

function explain({ headline, cause, advice, evidence }, tone) {
  at("explanation").dataset.tone = tone;
  say(at("headline"), headline);
  show(at("cause"), [cause, advice, evidence], () => [
    h("p", {}, cause),
    h("p", {}, h("b", {}, "What to do: "), coded(advice)),
    evidence.length ? [h("p", {}, h("b", {}, "What shows it:")), h("ul", {}, evidence.map((each) => h("li", {}, coded(each))))] : null,
  ]);
}

// What stands between backquotes is for a terminal.
const coded = (text) => text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));

function facts(session) {
  const about = (ms) => (ms ? `${moment(ms)} (${ago(ms, session.at_ms)})` : "");
  return [
    ["Dispatch id", session.dispatch_id],
    ["Client", session.client_id],
    ["Agent", session.agent_name],
    ["Container", session.container],
    ["Asked for", about(session.created_at_ms)],
    ["Asked for again", session.requested_at_ms !== session.created_at_ms ? about(session.requested_at_ms) : ""],
    ["Joined", session.joined_at_ms ? about(session.joined_at_ms) : ""],
    ["Time to join", session.time_to_join_ms === null ? "" : duration(session.time_to_join_ms)],
    ["Deadline", session.terminal || session.joined_at_ms ? "" : `${moment(session.deadline_at_ms)} (${duration(Math.max(0, session.deadline_at_ms - session.at_ms))} left)`],
    ["Agent server", session.agent_server_id],
    ["Agent's identity", session.agent_identity],
    ["LiveKit's dispatch", session.livekit_dispatch_id],
    ["LiveKit's job", session.job_id],
    ["In the API", h("a", { href: "/docs#showDispatch", "data-key": "api" }, h("code", {}, `GET /api/v1/dispatches/${session.dispatch_id}`))],
  ].filter(([, value]) => value);
}

function attempts(list) {
  if (!list.length) return h("p", { class: "empty" }, "LiveKit has not been asked yet.");
  return table(
    "Attempts",
    ["Attempt", "Outcome", "Reason", "Requests to LiveKit", "LiveKit's dispatch"],
    list.map((each) => [
      String(each.generation),
      each.outcome?.replaceAll("_", " ") ?? "under way",
      [each.reason ? sayFailure(each.reason) : "–", each.errors.map((error) => h("small", {}, error))],
      String(each.tries),
      h("span", { class: "id" }, each.livekit_dispatch_id || "–"),
    ]),
  );
}

function eventItem({ event, generation, at_ms: at, detail }, zero) {
  const told = Object.entries(detail).map(([name, value]) => `${name}=${value}`);
  const tone = event === "joined" ? "good" : BAD.includes(event) ? "bad" : "idle";
  return h(
    "li",
    { "data-event": event, "data-tone": tone },
    h("time", { datetime: new Date(at).toISOString(), title: moment(at, { millis: true }) }, `+${duration(at - zero)}`),
    h("b", {}, EVENTS[event] ?? event),
    h("small", {}, [event, generation > 1 ? `attempt ${generation}` : "", moment(at, { millis: true }), ...told].filter(Boolean).join(" · ")),
  );
}

// Flower searches from an address by name, worker or state only; by anything after an OR.
const flowerAddress = (url) => `${url.replace(/\/$/, "")}/tasks?name=${encodeURIComponent(`- OR ${id}`)}`;

async function unknown() {
  const response = await fetch(served(path), { cache: "no-store" });
  const { explanation } = await response.json();
  at("found").hidden = true;
  document.title = "Unknown session · Usher";
  say(at("room"), "Unknown session");
  at("state").replaceChildren();
  explain(explanation, "bad");
}

at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(id);
    say(at("copied"), "Copied.");
  } catch {
    // Browsers allow it only to https and localhost.
    getSelection().selectAllChildren([...at("facts").querySelectorAll("dd")][0]);
    say(at("copied"), "The id is selected; copy it with Ctrl+C.");
  }
});

const feed = new Feed(path, display, { onMissing: unknown });
