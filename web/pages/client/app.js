// The page: what it shows, and what its buttons do.

import { Level } from "./levels.js";
import { Session } from "./session.js";
import { IDLE, sayEvent, seconds } from "./words.js";

const LEVELS_EVERY_MS = 100;
const FALL = 0.08; // of a level in that time: a short word would be gone unseen

const at = (id) => document.getElementById(id);
const page = {
  state: at("state"), headline: at("headline"), advice: at("advice"), notice: at("notice"),
  form: at("start"), key: at("key"), call: at("call"),
  microphone: at("microphone"), leave: at("leave"), cancel: at("cancel"), again: at("again"), sound: at("sound"),
  yourLevel: at("your-level"), agentLevel: at("agent-level"),
  write: at("write"), text: at("text"), messages: at("messages"),
  timeline: at("timeline"), events: at("events"), following: at("following"),
  room: at("fact-room"), dispatch: at("fact-dispatch"), agent: at("fact-agent"),
};

let session = null;
const shownMessages = new Map(); // the list's items by message id: what is there already is not read out again
const levels = { yours: new Level(), agents: new Level() };

// ---- what a person does

page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = new FormData(page.form);
  start({ roomName: wanted.get("room").trim(), agentName: wanted.get("agent").trim() });
});
page.again.addEventListener("click", () => start(session));
page.microphone.addEventListener("click", () => session.toggleMicrophone());
page.leave.addEventListener("click", () => session.leave());
page.cancel.addEventListener("click", () => session.cancel());
page.sound.addEventListener("click", () => session.room.startAudio());
page.write.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = page.text.value.trim();
  page.text.value = "";
  if (text) session.write(text);
});

async function start({ roomName, agentName }) {
  if (session?.phase === "asking") return; // a double click
  const before = session;
  session = new Session({ key: page.key.value.trim(), roomName, agentName }, show);
  page.events.replaceChildren();
  page.messages.replaceChildren();
  shownMessages.clear();
  show();
  await before?.abandon();
  await session.start();
  if (session.saying.about === "key") page.key.focus();
}

// ---- what it looks like

function show() {
  const saying = session?.saying ?? IDLE;
  page.state.dataset.tone = saying.tone;
  say(page.headline, saying.headline);
  say(page.advice, saying.advice);
  say(page.notice, session?.notice ? `${session.notice.headline} ${session.notice.advice}` : "");
  page.key.setAttribute("aria-invalid", String(saying.about === "key"));
  page.key.setAttribute("aria-describedby", saying.about === "key" ? "headline key-note" : "key-note");
  page.again.hidden = !session?.mayTryAgain;
  if (session?.open) swap(page.form, page.call, page.leave);
  else swap(page.call, page.form, page.form.querySelector("button"));
  if (session) showCall();
  if (session) showTimeline();
}

// Writes only a changed text: screen readers read a live region out again when it is written.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

// Moves the focus away from an element that is about to be hidden, so that it is not lost.
function swap(hidden, shown, focused) {
  if (hidden.hidden && !shown.hidden) return;
  const hadFocus = hidden.contains(document.activeElement) || document.activeElement === page.again;
  hidden.hidden = true;
  shown.hidden = false;
  if (hadFocus) focused.focus();
}

function showCall() {
  const { phase, room, messages } = session;
  const you = room.localParticipant;
  const outside = phase !== "inside" && phase !== "reconnecting";
  page.microphone.disabled = outside;
  page.text.disabled = page.write.querySelector("button").disabled = outside;
  say(page.microphone, you.isMicrophoneEnabled ? "Mute" : session.microphone() ? "Unmute" : "Turn microphone on");
  page.cancel.hidden = !session.mayCancel;
  page.sound.hidden = room.canPlaybackAudio;
  for (const [id, { from, text }] of messages) {
    if (!shownMessages.has(id)) {
      shownMessages.set(id, item(["b", `${from}: `], ["span", ""]));
      page.messages.append(shownMessages.get(id));
    }
    say(shownMessages.get(id).lastChild, text);
  }
}

function showTimeline() {
  const { record, roomName, dispatchId } = session;
  page.timeline.hidden = !dispatchId;
  page.room.textContent = roomName;
  page.dispatch.textContent = dispatchId;
  page.agent.textContent = [record?.agent_name, record?.agent_identity].filter(Boolean).join(", ") || "…";
  say(page.following, session.followingNote);
  const timeline = record?.timeline ?? [];
  if (page.events.childElementCount > timeline.length) page.events.replaceChildren();
  for (const event of timeline.slice(page.events.childElementCount)) {
    page.events.append(eventItem(event, event.at_ms - record.created_at_ms));
  }
}

function eventItem({ event, generation, detail }, afterMs) {
  const facts = Object.entries(detail).map(([name, value]) => `${name}=${value}`);
  const attempt = generation > 1 ? [`attempt ${generation}`] : [];
  const made = item(["time", seconds(afterMs)], ["b", sayEvent(event)], ["small", [event, ...attempt, ...facts].join(" · ")]);
  made.dataset.event = event;
  return made;
}

function item(...parts) {
  const made = document.createElement("li");
  made.append(...parts.map(([tag, text]) => Object.assign(document.createElement(tag), { textContent: text })));
  return made;
}

setInterval(() => {
  if (!session || session.over) return;
  showLevel(page.yourLevel, levels.yours.level(session.microphone()));
  showLevel(page.agentLevel, levels.agents.level(session.agentTrack()));
}, LEVELS_EVERY_MS);

function showLevel(meter, level) {
  meter.value = Math.max(level, meter.value - FALL);
}

show();
