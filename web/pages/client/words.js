// The page's texts: every state, reason, event and error in plain words, each with advice.
// Nothing here touches the page, so that tests/browser can check that each of them has words.
//
// A "saying" is { tone, headline, advice, about }; the tone is one of "idle", "busy", "good", "bad" and
// "over", and `about` is "key" where that is what is wrong.

const saying = (tone, headline, advice = "", about = "") => ({ tone, headline, advice, about });

export const IDLE = saying("idle", "No session yet.", "Enter your key and start one.");
export const ASKING = saying("busy", "Asking Usher for a session …");

// ---- a dispatch, by its state

export const STATES = {
  queued: () => saying("busy", "The agent is being called …"),
  dispatching: () => saying("busy", "The agent is being called …"),
  dispatched: () => saying("busy", "LiveKit is looking for an agent server …"),
  offered: () => saying("busy", "An agent server has refused; another one is being looked for …"),
  accepted: () => saying("busy", "The agent is on its way into the room …"),
  joined: ({ time_to_join_ms: ms, agent_identity: agent }) =>
    saying(
      "good",
      ms ? `The agent is here: it joined after ${seconds(ms)}.` : "The agent is here.",
      agent ? "Turn the microphone on and speak, or write to it." : "",
    ),
  waiting: (record) =>
    saying("busy", `Waiting for an agent: ${reasonOf(record).why}`, "Usher goes on trying; you need not do anything yet."),
  delegated: () => saying("busy", "Usher's memory is away, so LiveKit itself brings the agent.", "It comes when you are in the room."),
  leaving: () => saying("over", "The session is over, and the agent is about to leave.", "Start another one whenever you like."),
  ended: () => saying("over", "The session has ended.", "Start another one whenever you like."),
  cancelled: (record) => saying("over", `The session is cancelled: ${reasonOf(record).why}`, reasonOf(record).advice),
  failed: (record) => saying("bad", `No agent came: ${reasonOf(record).why}`, reasonOf(record).advice),
};

export const REASONS = {
  no_agent_online: ["no agent server is running for this agent.", "Have its agent server started, or check the agent's name; then try again."],
  no_capacity: ["all agent servers are busy.", "Try again in a minute, or have more agent servers started."],
  rejected: ["the agent server has refused.", "The agent's log says why; try again when that is mended."],
  livekit_unreachable: ["Usher could not reach LiveKit.", "Check that the LiveKit server is running and that Usher has its right address; then try again."],
  livekit_refused: ["LiveKit has refused Usher's request.", "The LiveKit key or secret of this client is wrong: whoever runs Usher has to set it right."],
  join_timeout: ["an agent was asked, but did not come in time.", "Try again. If it happens again, the agent's log says what it was doing."],
  agent_lost: ["the agent got lost, and so did those sent after it.", "The agent's log says what ended it; try again when that is mended."],
  agent_crashed: ["the agent's program crashed before it could join.", "The agent's log says why; try again when that is mended."],
  nobody_came: ["nobody came into the room.", "Start another session."],
  dispatcher_unavailable: ["Usher's workers did not get to it in time.", "Whoever runs Usher should look at its dispatch workers; then try again."],
  client_removed: ["this client is not configured any more.", "Whoever runs Usher has taken it out; ask there."],
  superseded: ["another session serves this room.", "Start again to get into that one."],
  cancelled_by_client: ["as you have asked.", "Start another one whenever you like."],
};

function reasonOf({ failure_reason: reason, failure_message: message }) {
  const code = (reason ?? "").split(":")[0];
  const [why, advice] = REASONS[code] ?? [message || reason || "no reason was given.", "Try again."];
  // The servers' own words say more: which agent, which container, how many are busy.
  return { why: why + (message && message !== why ? ` (${message})` : ""), advice };
}

export const sayDispatch = (record) => (STATES[record.state] ?? (() => saying("busy", `State: ${record.state}`)))(record);

// ---- what happens to it

export const EVENTS = {
  queued: "Asked for",
  delegated: "Left to LiveKit's own dispatch",
  dispatching: "Calling LiveKit",
  dispatched: "LiveKit has the order",
  offered: "Offered to an agent server",
  accepted: "An agent server has accepted",
  adopted: "Taken over from LiveKit's own dispatch",
  rejected: "An agent server has refused",
  agent_connected: "The agent has connected",
  joined: "The agent is in the room",
  agent_adopted: "Another agent stands in for it",
  surplus_agent: "A second agent is put out",
  foreign_agent: "Another backend's agent is put out",
  agent_leaving: "The agent answers no more; it is leaving",
  came_back: "Somebody is there again; another agent is called",
  agent_crashed: "The agent's program crashed; another one is called",
  agent_left: "The agent has left",
  agent_lost: "The agent got lost; another one is called",
  waiting: "Waiting",
  still_waiting: "Still waiting",
  livekit_unreachable: "LiveKit does not answer",
  requeued: "Trying again",
  redispatch: "Sent again",
  redispatch_requested: "Asked to send it again",
  redispatch_refused: "Not sent again",
  failed: "Failed",
  ended: "Ended",
  cancelled: "Cancelled: nobody came",
  cancelled_by_client: "Cancelled",
};

export const sayEvent = (event) => EVENTS[event] ?? event;

// ---- what Usher answers when it refuses

const ANSWERS = {
  400: () => ["Usher did not understand the request.", "Load the page again."],
  401: () => ["This key is not valid.", "Check that you have copied all of it, and that nobody has taken it out of use."],
  404: () => ["Usher does not know this session any more.", "Start another one."],
  413: () => ["That was too much text.", "Make it shorter."],
  429: () => ["That was too often.", "Wait a minute, then try again."],
  503: () => ["Usher cannot take sessions right now.", "Try again in some seconds."],
};

/** `status` 0: no answer. `detail` is the problem's own, if there is one. */
export function sayAnswer(status, detail, origin = "") {
  if (!status) return saying("bad", "Usher cannot be reached.", "Check your network, and that Usher is running; then try again.");
  if (status === 403 && detail.includes("origins")) {
    return saying("bad", "This key does not work from this page.", `It is a publishable key: whoever runs Usher has to add ${origin} to the client's origins. Or use a secret key.`, "key");
  }
  const [headline, advice] = ANSWERS[status]?.() ?? [
    status < 500 ? "Usher has refused." : "Usher has made a mistake.",
    status < 500 ? "Change what you have entered, then try again." : "Try again; its log says more.",
  ];
  return saying("bad", headline, detail && status !== 401 ? `${sentence(detail)} ${advice}` : advice, status === 401 ? "key" : "");
}

/** Of the error that LiveKit's TokenSource throws: its text ends in "received 401 / {...}". */
export function sayRefusal(error, origin) {
  const [, status, body] = /received (\d{3}) \/ ([\s\S]*)$/.exec(error.message) ?? [];
  if (!status) return sayAnswer(error instanceof TypeError ? 0 : 500, "");
  let detail = "";
  try {
    const problem = JSON.parse(body);
    const fields = (problem.errors ?? []).map(({ field, message }) => `${field}: ${message}`);
    detail = [problem.detail, ...fields].join("; ");
  } catch {
    // not Usher's: a proxy's page, say
  }
  return sayAnswer(Number(status), detail, origin);
}

// ---- the room

export const JOINING = saying("busy", "Entering the room …");
export const RECONNECTING = saying("busy", "The connection is interrupted.", "Trying to get it back; check your network.");
export const LEFT = saying("over", "You have left.", "The agent leaves within half a minute. Start another session whenever you like.");

/** `reason` is the name of livekit-client's ConnectionErrorReason. */
export function sayNotJoined(reason, url) {
  if (reason === "NotAllowed") {
    return saying("bad", "LiveKit did not let you in.", "Its key or secret differs from Usher's: whoever runs Usher has to set it right. Then try again.");
  }
  return saying("bad", `LiveKit cannot be reached at ${url}.`, "Check your network, a VPN or firewall, and that the LiveKit server is running; then try again.");
}

const AGAIN = "Try again to get back into the room.";
const DISCONNECTS = {
  DUPLICATE_IDENTITY: ["You have entered this room somewhere else.", AGAIN],
  SERVER_SHUTDOWN: ["The LiveKit server is shutting down.", AGAIN],
  PARTICIPANT_REMOVED: ["Somebody has put you out of the room.", AGAIN],
  ROOM_DELETED: ["Somebody has closed the room.", "Start another session."],
  ROOM_CLOSED: ["LiveKit has closed the room.", "Start another session."],
};

/** `reason` is the name of livekit-client's DisconnectReason. */
export function sayDisconnected(reason) {
  const [headline, advice] = DISCONNECTS[reason] ?? ["The connection is lost.", `Check your network. ${AGAIN}`];
  return saying("bad", headline, advice);
}

// ---- the microphone

const MICROPHONE = {
  insecure: ["This page may not use the microphone.", "Browsers allow that only to https:// pages and to localhost: open the page that way. You can still write to the agent."],
  NotAllowedError: ["You have not allowed the microphone.", "Allow it in the browser's settings for this page (left of its address), then turn it on again. You can still write to the agent."],
  NotFoundError: ["There is no microphone.", "Plug one in and turn it on again. You can still write to the agent."],
  NotReadableError: ["The microphone is in use by another program.", "Close that program, or choose another microphone in the browser's settings, then turn it on again."],
};

/** `name` is the error's name, or "insecure". */
export function sayMicrophone(name) {
  const [headline, advice] = MICROPHONE[name] ?? ["The microphone does not work.", "Load the page again, or use another browser. You can still write to the agent."];
  return saying("bad", headline, advice);
}

// ---- live updates

export const FOLLOWING_INTERRUPTED = "Live updates are interrupted; trying to get them back.";
export const FOLLOWING_OVER = "Live updates have ended: the token that reads them is valid for ten minutes. The session itself goes on.";

// ---- small things

export const seconds = (ms) => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/[.]?$/, ".");
