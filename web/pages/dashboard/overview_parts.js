// The overview's parts: each is a function from its data to elements.

import { bars } from "./bars.js";
import { h, table } from "./dom.js";
import { histogram } from "./histogram.js";
import { REJECTS, STATES, TONES, UNDER_WAY, age, ago, many, moment, number, sayFailure, share } from "./words.js";

const WINDOWS = { "5m": "last 5 minutes", "1h": "last hour", "1d": "last day", all: "all time" };

export const troubleList = (troubles) =>
  troubles.map(({ tone, what, advice, href }) => h("li", { "data-tone": tone }, h("b", {}, what), " ", advice, href ? [" ", h("a", { href, "data-key": href }, "Show them")] : null));

export function successTiles(success, client) {
  return Object.entries(WINDOWS).map(([name, words]) => {
    const { success_rate: rate, joined, failed, dispatches } = success[name];
    const tone = rate === null ? "idle" : rate >= 0.99 ? "good" : rate >= 0.95 ? "warn" : "bad";
    return h(
      "li",
      { class: "tile", "data-tone": tone, "data-window": name },
      h("span", { class: "tile-name" }, words),
      h("b", { class: "tile-value" }, share(rate)),
      h("span", { class: "tile-note" }, rate === null ? noResult(dispatches) : [`${number(joined)} joined, `, failed ? failedLink(failed, name, client) : "0 failed"]),
    );
  });
}

const noResult = (dispatches) => (dispatches ? `${many(dispatches, "session")}, no result yet` : "no session");

const SINCE_S = { "5m": "300", "1h": "3600", "1d": "86400", all: "" };

function failedLink(failed, name, client) {
  const query = new URLSearchParams({ state: "failed" });
  if (SINCE_S[name]) query.set("since_s", SINCE_S[name]);
  if (client) query.set("client", client);
  return h("a", { href: `/dashboard/sessions?${query}`, "data-key": `failed-${name}` }, `${number(failed)} failed`);
}

export function stateBars(states, client) {
  const more = client ? `&client=${encodeURIComponent(client)}` : "";
  const total = UNDER_WAY.reduce((sum, state) => sum + (states[state] ?? 0), 0);
  if (!total) return h("p", { class: "empty" }, "No session right now. ", h("a", { href: "/", "data-key": "try" }, "Start one"), " to see how it goes.");
  const rows = UNDER_WAY.map((state) => ({
    key: state,
    label: STATES[state],
    count: states[state] ?? 0,
    tone: TONES[state],
    href: states[state] ? `/dashboard/sessions?state=${state}${more}` : null,
  })).filter(({ key, count }) => count || ["waiting", "joined"].includes(key));
  return bars("Sessions that have not ended, by state", ["State", "Sessions"], rows, "");
}

export const joins = (data) => histogram(data, "No agent has joined in this time.");

export function failureBars(list) {
  const rows = list.map(({ reason, count }) => ({ key: reason, label: sayFailure(reason), count, tone: "bad" }));
  return bars("Failed sessions by reason", ["Reason", "Sessions"], rows, "No session has failed in this time.");
}

export function rejectBars([list, requests]) {
  const rows = list.map(({ reason, count }) => ({ key: reason, label: REJECTS[reason] ?? reason, count, tone: "warn" }));
  const rejects = list.reduce((sum, { count }) => sum + count, 0);
  return [
    rows.length ? h("p", { class: "figures" }, `${number(rejects)} of ${many(requests, "offered job")} (${share(rejects / requests)}).`) : null,
    bars("Refused jobs by reason", ["Reason", "Jobs"], rows, requests ? `All ${number(requests)} offered jobs were accepted.` : "No job was offered in this time."),
  ];
}

export function failures([list, client], nowMs) {
  if (!list.length) return h("p", { class: "empty" }, "No session has failed, of those that Redis still has.");
  const query = new URLSearchParams({ state: "failed", ...(client && { client }) });
  return [
    h("ol", { class: "failures" }, list.map((each) => failure(each, nowMs))),
    h("p", {}, h("a", { href: `/dashboard/sessions?${query}`, "data-key": "all-failed" }, "All failed sessions")),
  ];
}

const failure = ({ dispatch_id: id, room_name: room, client_id: client, agent_name: agent, updated_at_ms: at, headline, cause }, nowMs) =>
  h(
    "li",
    { "data-dispatch": id },
    h("a", { href: `/dashboard/sessions/${id}`, class: "failure-title", "data-key": id }, headline),
    h("p", { class: "failure-cause" }, cause),
    h("p", { class: "meta" }, h("time", { datetime: new Date(at).toISOString(), title: moment(at) }, ago(at, nowMs)), ` · ${room} · ${agent} · ${client}`),
  );

export function servers([list, agents]) {
  const rates = new Map(agents.map((each) => [`${each.client_id} ${each.container} ${each.agent_name}`, each]));
  if (!list.length) {
    return h("p", { class: "empty" }, "No agent server has reported itself. Start one (", h("code", {}, "python -m worker_agent"), ", or your own program with Usher's two lines); agents named in USHER_UNFENCED_AGENTS never report.");
  }
  return [
    table("Agent servers", ["Agent server", "Agent", "Slots", "Load", "State"], list.map(serverRow)),
    agents.length ? h("details", { "data-key": "answers" }, h("summary", { "data-key": "answers-summary" }, "What they have answered in this time"), answers(rates)) : null,
  ];
}

function stateOf(server) {
  if (server.draining) return ["draining", "warn"];
  if (!server.registered) return ["not registered at LiveKit", "bad"];
  return server.cannot_start ? ["cannot start its processes", "bad"] : ["online", "good"];
}

function serverRow(server) {
  const used = h("span", { class: "bar-line", "data-tone": server.free_slots ? "main" : "warn", "aria-hidden": "true" });
  used.style.width = `${(100 * server.used_slots) / Math.max(1, server.slots)}%`;
  const [state, tone] = stateOf(server);
  return [
    h("span", { class: "id" }, server.agent_server_id),
    [server.agent_name, h("small", {}, [server.container && `container ${server.container}`, server.client_id ? `client ${server.client_id}` : "any client"].filter(Boolean).join(", "))],
    h("span", { class: "slots" }, h("span", { class: "bar-ground" }, used), `${server.used_slots} of ${server.slots}`),
    share(server.load),
    h("span", { class: "badge", "data-tone": tone }, state),
  ];
}

function answers(rates) {
  const rows = [...rates.values()].map((each) => [
    each.agent_name,
    each.container || "–",
    each.client_id || "not ours",
    number(each.requests),
    `${number(each.accepts)}${each.acceptance_rate === null ? "" : ` (${share(each.acceptance_rate)})`}`,
    number(each.rejects),
  ]);
  return table("What the agent servers have answered", ["Agent", "Container", "Client", "Offered", "Accepted", "Refused"], rows);
}

export function healthFacts(health) {
  const worker = (queue) => (health.workers.includes(queue) ? badge("at work", "good") : badge("no worker", health.missing.includes(`worker:${queue}`) ? "bad" : "idle"));
  const queues = Object.entries(health.queues).map(([queue, length]) => [queue, number(length), worker(queue)]);
  const silent = health.sweeper_silent_s;
  return [
    table("Celery's queues", ["Queue", "Waiting", "Worker"], queues, { stacked: false }),
    h(
      "dl",
      { class: "facts" },
      fact("Sweeper", silent === null ? badge("has not swept yet", "warn") : silent < 10 ? badge("at work", "good") : badge(`silent for ${age(silent)}`, "bad")),
      fact("Waiting for an agent server", health.waiting ? `${number(health.waiting)}, the oldest for ${age(health.oldest_waiting_s)}` : "nobody"),
      fact("Due, and not looked at yet", health.overdue ? `${number(health.overdue)}, the oldest for ${age(health.oldest_overdue_s)}` : "nothing"),
      fact("Parked records", health.parked ? badge(number(health.parked), "warn") : "none"),
      fact("Times that Redis came back without its data", health.data_losses ? badge(number(health.data_losses), "warn") : "none"),
    ),
  ];
}

const badge = (text, tone) => h("span", { class: "badge", "data-tone": tone }, text);
const fact = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
