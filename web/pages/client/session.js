// One session: a token from Usher, a LiveKit room, and the dispatch that brings the agent. LiveKit's
// own SDK, unchanged, fetches the token and joins; Usher's part is the dispatch's events.

import { follow } from "./following.js";
import * as words from "./words.js";

const { ConnectionErrorReason, decodeTokenPayload, DisconnectReason, Room, RoomEvent, TokenSource, Track } =
  globalThis.LivekitClient;

const PREFIX = document.documentElement.dataset.prefix ?? ""; // where a proxy serves Usher under a path
const ENDPOINT = `${PREFIX}/api/v1/dispatches`;
const DISPATCH_ID = "usher.dispatch_id"; // the participant attribute that Usher puts into the token
const TERMINAL = ["ended", "failed", "cancelled"];

export class Session {
  phase = "asking"; // then "joining", "inside", "reconnecting", "outside"
  record = null; // the dispatch, as Usher tells it
  notice = null; // a saying about something smaller than the whole session
  messages = new Map(); // by id: { from, text }
  roomName = "";
  dispatchId = "";
  #outside = null;
  #key;
  #wanted;
  #changed;
  #following = new AbortController();
  #interrupted = "";

  /** `changed()` is called after every change. The key is kept here and nowhere else. */
  constructor({ key, roomName, agentName }, changed) {
    this.#key = key;
    this.#wanted = { ...(roomName && { roomName }), ...(agentName && { agentName }) };
    this.#changed = changed;
    this.room = new Room({ publishDefaults: { stopMicTrackOnMute: true } }); // muted is off
    this.#listen();
  }

  get agentName() {
    return this.#wanted.agentName ?? "";
  }

  /** True from the token to the leaving. */
  get open() {
    return Boolean(this.dispatchId) && !this.over;
  }

  get over() {
    return this.phase === "outside";
  }

  /** True when another try, in the same room, is the thing to do. */
  get mayTryAgain() {
    return this.record?.state === "failed" || (this.over && this.#outside?.tone === "bad" && Boolean(this.roomName));
  }

  get mayCancel() {
    return !this.#key.startsWith("upk_") && !TERMINAL.includes(this.record?.state);
  }

  get saying() {
    if (this.phase === "asking") return words.ASKING;
    // Why the person is outside is shown before the end of the dispatch, but not before its failure.
    if (this.over && this.#outside.tone === "bad" && this.record?.state !== "failed") return this.#outside;
    if (TERMINAL.includes(this.record?.state)) return words.sayDispatch(this.record);
    if (this.over) return this.#outside;
    if (this.phase === "joining") return words.JOINING;
    if (this.phase === "reconnecting") return words.RECONNECTING;
    // Where Usher does not say what happens, the room itself still does.
    if (this.agent && (!this.record || this.#interrupted)) return words.STATES.joined({ agent_identity: this.agent.identity });
    return words.sayDispatch(this.record ?? { state: "queued" });
  }

  get followingNote() {
    return this.#interrupted;
  }

  async start() {
    let token;
    try {
      const headers = { Authorization: `Bearer ${this.#key}` };
      token = await TokenSource.endpoint(ENDPOINT, { headers }).fetch(this.#wanted);
    } catch (error) {
      return this.#leaveAs(words.sayRefusal(error, location.origin));
    }
    const { attributes, video } = decodeTokenPayload(token.participantToken);
    this.dispatchId = attributes[DISPATCH_ID];
    this.roomName = video.room;
    this.phase = "joining";
    this.#changed();
    this.#follow(token.participantToken);
    await this.#join(token);
  }

  async #join({ serverUrl, participantToken }) {
    try {
      await this.room.connect(serverUrl, participantToken);
    } catch (error) {
      if (!this.over) this.#leaveAs(words.sayNotJoined(ConnectionErrorReason[error.reason], serverUrl));
      return;
    }
    if (this.over) return;
    this.phase = "inside";
    this.#changed();
  }

  // ---- what a person does

  async leave() {
    await this.#leave(words.LEFT);
  }

  /** Leaves for good: nothing more is heard of this session. */
  async abandon() {
    this.#following.abort();
    this.#changed = () => {};
    await this.leave();
  }

  async cancel() {
    const headers = { Authorization: `Bearer ${this.#key}` };
    let answer = { status: 0, json: async () => null };
    try {
      answer = await fetch(`${ENDPOINT}/${this.dispatchId}`, { method: "DELETE", headers });
    } catch {
      // no answer
    }
    if (answer.status === 200) return this.leave(); // the events tell the rest
    const body = await answer.json().catch(() => null);
    this.#note(words.sayAnswer(answer.status, body?.detail ?? "", location.origin));
  }

  async toggleMicrophone() {
    this.#note(null);
    if (!globalThis.isSecureContext) return this.#note(words.sayMicrophone("insecure"));
    try {
      await this.room.localParticipant.setMicrophoneEnabled(!this.room.localParticipant.isMicrophoneEnabled);
    } catch (error) {
      this.#note(words.sayMicrophone(error.name));
    }
    this.#changed();
  }

  async write(text) {
    const { id } = await this.room.localParticipant.sendText(text, { topic: "lk.chat" });
    this.#hear(id, "You", text);
  }

  // ---- what happens

  microphone() {
    return this.room.localParticipant.getTrackPublication(Track.Source.Microphone)?.track;
  }

  get agent() {
    return [...this.room.remoteParticipants.values()].find((participant) => participant.isAgent);
  }

  agentTrack() {
    return this.agent?.getTrackPublication(Track.Source.Microphone)?.track;
  }

  #listen() {
    const room = this.room;
    const changed = () => this.#changed();
    for (const event of [
      RoomEvent.ParticipantConnected,
      RoomEvent.ParticipantDisconnected,
      RoomEvent.TrackMuted,
      RoomEvent.TrackUnmuted,
      RoomEvent.LocalTrackPublished,
      RoomEvent.LocalTrackUnpublished,
      RoomEvent.AudioPlaybackStatusChanged,
    ]) {
      room.on(event, changed);
    }
    room.on(RoomEvent.TrackSubscribed, (track) => {
      if (track.kind === Track.Kind.Audio) document.body.append(track.attach());
    });
    room.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((element) => element.remove()));
    room.on(RoomEvent.MediaDevicesError, (error) => this.#note(words.sayMicrophone(error.name)));
    room.on(RoomEvent.Reconnecting, () => this.#enter("reconnecting"));
    room.on(RoomEvent.Reconnected, () => this.#enter("inside"));
    room.on(RoomEvent.Disconnected, (reason) => {
      if (this.phase !== "joining" && !this.over) this.#leaveAs(words.sayDisconnected(DisconnectReason[reason]));
    });
    room.registerTextStreamHandler("lk.transcription", async (reader, { identity }) => {
      const text = await reader.readAll();
      const own = identity === room.localParticipant.identity;
      this.#hear(reader.info.attributes?.["lk.segment_id"] ?? reader.info.id, own ? "You" : "Agent", text);
    });
  }

  #follow(participantToken) {
    const on = {
      event: (name, data) => this.#tell(name, data),
      interrupted: () => this.#interrupt(words.FOLLOWING_INTERRUPTED),
      back: () => this.#interrupt(""),
      over: () => this.#interrupt(words.FOLLOWING_OVER),
    };
    follow(`${ENDPOINT}/${this.dispatchId}/events`, [participantToken, this.#key], on, this.#following.signal);
  }

  #tell(name, data) {
    if (name !== "timeline") {
      this.record = data;
    } else if (this.record) {
      const { state, detail, ...event } = data;
      this.record.timeline.push({ ...event, detail });
      Object.assign(this.record, { state }, knownFrom(event.event, detail));
    }
    this.#changed();
    if (["cancelled", "ended"].includes(this.record.state) && !this.over) {
      this.#leave(this.phase === "reconnecting" ? words.sayDisconnected() : words.LEFT);
    }
  }

  #hear(id, from, text) {
    this.messages.set(id, { from, text });
    this.#changed();
  }

  #enter(phase) {
    if (!this.over) this.phase = phase;
    this.#changed();
  }

  async #leave(saying) {
    this.#leaveAs(saying);
    await this.room.disconnect();
  }

  #leaveAs(saying) {
    this.phase = "outside";
    this.#outside = saying;
    this.notice = null;
    this.#changed();
  }

  #note(saying) {
    this.notice = saying;
    this.#changed();
  }

  #interrupt(note) {
    this.#interrupted = note;
    this.#changed();
  }
}

// What an event says of the record; the rest comes with the record itself, when it has ended.
function knownFrom(event, detail) {
  if (event === "joined") {
    return {
      agent_identity: detail.agent_identity,
      time_to_join_ms: Number(detail.time_to_join_ms),
      failure_reason: null,
      failure_message: null,
    };
  }
  if (["waiting", "failed", "still_waiting", "livekit_unreachable"].includes(event) && detail.reason) {
    return { failure_reason: detail.reason, failure_message: detail.message ?? null };
  }
  return {};
}
