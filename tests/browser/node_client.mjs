// What a program in Node does with Usher: LiveKit's own SDKs, and nothing of ours. livekit-client fetches
// the token; it needs a browser to join, so @livekit/rtc-node joins. Prints what it has seen as JSON.
import { TokenSource } from "livekit-client";
import { dispose, ParticipantKind, Room, RoomEvent } from "@livekit/rtc-node";

const { USHER_URL, USHER_KEY, USHER_ROOM } = process.env;
const AGENT_WITHIN_MS = 20_000;

const source = TokenSource.endpoint(`${USHER_URL}/api/v1/dispatches`, {
  headers: { Authorization: `Bearer ${USHER_KEY}` },
});
const { serverUrl, participantToken } = await source.fetch({ roomName: USHER_ROOM });

const room = new Room();
const connected = room.connect(serverUrl, participantToken, { autoSubscribe: true, dynacast: false });
// An agent that comes meanwhile is told of before the room has a name: both are waited for.
const agentCame = new Promise((found, failed) => {
  setTimeout(() => failed(new Error("no agent came")), AGENT_WITHIN_MS).unref();
  const look = (participant) => participant.info.kind === ParticipantKind.AGENT && found(participant);
  room.on(RoomEvent.ParticipantConnected, look);
  connected.then(() => room.remoteParticipants.forEach(look), failed);
});
const [agent] = await Promise.all([agentCame, connected]);
console.log(JSON.stringify({
  room: room.name,
  agent: agent.identity,
  dispatchId: room.localParticipant.attributes["usher.dispatch_id"],
}));
await room.disconnect();
await dispose();
