// The dashboard's texts: states, reasons and stages in a few words each; times and shares.
// A test checks that everything that can happen has words.

export const STATES = {
  queued: "queued",
  dispatching: "asking LiveKit",
  dispatched: "LiveKit looks for an agent",
  offered: "offered",
  accepted: "agent on its way",
  joined: "joined",
  leaving: "agent is leaving",
  waiting: "waiting for an agent",
  delegated: "left to LiveKit",
  ended: "ended",
  failed: "failed",
  cancelled: "cancelled",
};
export const TONES = { joined: "good", failed: "bad", waiting: "warn", leaving: "idle", ended: "idle", cancelled: "idle" };

// In the order in which a session goes through them; with what has ended last.
export const UNDER_WAY = ["queued", "waiting", "delegated", "dispatching", "dispatched", "offered", "accepted", "joined", "leaving"];
export const OVER = ["ended", "failed", "cancelled"];

export const FAILURES = {
  no_agent_online: "no agent server online",
  no_capacity: "every agent server full",
  rejected: "refused by the agent servers",
  livekit_unreachable: "LiveKit did not answer",
  livekit_refused: "LiveKit refused our key",
  join_timeout: "agent did not join in time",
  agent_lost: "agents died again and again",
  agent_crashed: "agent program crashed",
  nobody_came: "nobody came",
  dispatcher_unavailable: "no dispatch worker at work",
  client_removed: "client not configured any more",
  superseded: "another dispatch serves the room",
  cancelled_by_client: "cancelled by its client",
};

export const REJECTS = {
  wrong_container: "belongs in another container",
  wrong_client: "belongs to another client",
  full: "no free slot",
  stale_generation: "an attempt that is over",
  second_job: "a second job for the session",
  dispatch_not_open: "not wanted any more",
  unknown_dispatch: "unknown to the ledger",
  room_served_by_another_dispatch: "room has another dispatch",
  ledger_unavailable: "could not ask Redis",
  declined_by_program: "declined by the program",
  processes_cannot_start: "cannot start its processes",
};

/** Of a failure, which may be "rejected: full". */
export function sayFailure(reason) {
  const [code, detail] = reason.split(/:\s*/, 2);
  const words = FAILURES[code] ?? code;
  return detail ? `${words}: ${REJECTS[detail] ?? detail}` : words;
}

// What a stage of the way is called, and which colour it has (style.css).
export const STAGES = {
  queue_wait: "waits for a worker",
  waiting: "waits for an agent server",
  adoption: "left to LiveKit",
  dispatch: "LiveKit is asked",
  offer: "LiveKit looks for an agent server",
  accept: "agent servers decide",
  join: "the agent starts and joins",
  session: "in the room",
  leaving: "leaves the room",
};

// ---- numbers

export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 60) return `${minutes} min ${Math.floor((ms % 60_000) / 1000)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

export const ago = (thenMs, nowMs) => (nowMs - thenMs < 1500 ? "just now" : `${rough(nowMs - thenMs)} ago`);

const rough = (ms) => age(Math.round(ms / 1000));

/** Whole seconds, minutes, hours or days. */
export function age(s) {
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172_800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86_400)} days`;
}

/** Never rounded up: 999 of 1,000 and one failure are not 100 %. */
export const share = (part) => (part === null || part === undefined ? "–" : `${Math.floor(part * 1000 + 1e-9) / 10} %`);

const numbers = new Intl.NumberFormat("en");
export const number = (value) => numbers.format(value);
export const many = (count, one, more = `${one}s`) => `${number(count)} ${count === 1 ? one : more}`;

const two = (value) => String(value).padStart(2, "0");
const day = (at) => `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;

export function clock(ms, { millis = false } = {}) {
  const at = new Date(ms);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return millis ? `${time}.${String(at.getMilliseconds()).padStart(3, "0")}` : time;
}

/** Absolute, in the reader's own time zone. */
export const moment = (ms, options) => `${day(new Date(ms))} ${clock(ms, options)}`;
