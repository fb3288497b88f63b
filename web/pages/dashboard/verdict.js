// The verdict on all parts: what is wrong, and what to do. A pure function from the overview to words.

import { age, many, sayFailure, share } from "./words.js";

const OVERDUE_S = 5; // the sweeper looks every second
const SILENT_S = 10;
const LONG_WAIT_S = 5;
const POOR_SHARE = 0.95;

/** { tone, headline, troubles: [{ what, advice, href }] } */
export function judge(overview) {
  const troubles = [...missing(overview.health), ...sweeping(overview.health), ...capacity(overview), ...sessions(overview)];
  if (troubles.length) {
    const bad = troubles.some(({ tone }) => tone === "bad");
    return { tone: bad ? "bad" : "warn", headline: troubles.length === 1 ? "Something needs you:" : `${troubles.length} things need you:`, troubles };
  }
  return { tone: "good", headline: "All is well.", troubles };
}

const trouble = (tone, what, advice, href = "") => ({ tone, what, advice, href });

const RUNBOOK = "docs/operations.md has what to do.";

function sweeper({ sweeper_silent_s: silent, workers }) {
  if (silent !== null && silent < SILENT_S) return trouble("warn", "Beat sends no sweeps; a dispatch worker sweeps in its place.", "Start beat, or look into its log.");
  if (!workers.includes("sweep")) return trouble("bad", "Nothing sweeps: no worker takes the sweeps.", "Start the dispatch worker: what gets lost is not found until then.");
  return trouble("bad", "Nothing sweeps: neither beat nor the dispatch worker.", "Restart the dispatch worker, and start beat: what gets lost is not found until then.");
}

function missing(health) {
  const names = health.missing;
  return names.map((name) => {
    const [kind, rest] = name.split(/:(.*)/s);
    if (kind === "worker") return trouble("bad", `No worker serves the queue “${rest}”.`, `Start it, or look into its log: Procfile, process “${rest}”.`);
    if (kind === "sweeper") return sweeper(health);
    if (kind === "livekit") return trouble("bad", `The LiveKit server of client “${rest}” does not answer the workers.`, "Check that it runs, its address, and the client's key and secret.");
    if (kind === "agent") return trouble("bad", `No agent server is online for agent “${rest}”.`, "Start one, or look whether it has lost its LiveKit (agent servers, below).");
    if (kind === "clients_file") return trouble("warn", "The file of clients is wrong; the clients are those of before.", "The web's log has line and reason.");
    return trouble("warn", `${name} has not reported itself.`, RUNBOOK);
  });
}

function sweeping({ overdue, oldest_overdue_s: oldest, sweeper_silent_s: silent, missing: names, parked }) {
  const found = [];
  if (overdue && oldest >= OVERDUE_S) found.push(trouble("bad", `${many(overdue, "session")} should have been looked at, the oldest ${age(oldest)} ago.`, "The workers do not keep up, or hang: look at the queues below."));
  if (silent !== null && silent >= SILENT_S && !names.includes("sweeper")) found.push(trouble("bad", `The last sweep was ${age(silent)} ago.`, "Start beat and a dispatch worker."));
  if (parked) found.push(trouble("warn", `${many(parked, "record")} cannot be read and ${parked === 1 ? "is" : "are"} parked.`, "GET /readyz has the ids."));
  return found;
}

function capacity({ health, states }) {
  const online = health.agent_servers.filter((server) => server.online);
  const free = online.reduce((sum, server) => sum + server.free_slots, 0);
  const waiting = states.waiting ?? 0;
  if (online.length && !free) return [trouble("warn", "Every slot of every agent server is taken.", "Start more agent servers, or raise USHER_AGENT_SLOTS.")];
  if (waiting && health.oldest_waiting_s >= LONG_WAIT_S) {
    return [trouble("warn", `${many(waiting, "session")} ${waiting === 1 ? "waits" : "wait"} for an agent, the oldest for ${age(health.oldest_waiting_s)}.`, "Each says what it waits for.", "/dashboard/sessions?state=waiting")];
  }
  return [];
}

function sessions({ success, newest_failures: failures }) {
  const { success_rate: rate, failed } = success["5m"];
  if (rate === null || rate >= POOR_SHARE) return [];
  const newest = failures[0] ? ` The newest: ${sayFailure(failures[0].failure_reason)}.` : "";
  return [trouble("bad", `Of the sessions of the last 5 minutes ${share(rate)} got their agent; ${failed} did not.${newest}`, "Open one of them: it says why.", "/dashboard/sessions?state=failed&since_s=300")];
}
