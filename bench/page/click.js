// Measure the time from a click until the agent's track makes a sound (bench/measure/sound.py).
// `window.wanted` says how to get a token; `window.result` is a promise of the times.
const { Room, RoomEvent, Track } = LivekitClient;

const LOUD = 0.02; // of 1; the agent's tone has 0.3
const POLL_MS = 4;
const audio = new AudioContext();

document.querySelector("button").addEventListener("click", () => {
  window.result = talk(performance.now(), window.wanted);
});

// Times are in ms from the click.
async function talk(clicked, wanted) {
  const times = {};
  const note = (name) => { times[name] = performance.now() - clicked; };
  const room = new Room();
  const heard = new Promise((resolve) => {
    room.on(RoomEvent.TrackSubscribed, async (track, _publication, participant) => {
      if (!participant.isAgent || track.kind !== Track.Kind.Audio) return;
      note("subscribed_ms");
      await sound(track);
      note("heard_ms");
      resolve();
    });
  });
  const { url, token, dispatchId } = await credentials(wanted);
  note("token_ms");
  await room.connect(url, token);
  note("connected_ms");
  room.localParticipant.setMicrophoneEnabled(true); // as a page does on which people talk
  await heard;
  return { ...times, dispatch_id: dispatchId };
}

async function credentials({ url, token, endpoint, key, room }) {
  if (token) return { url, token, dispatchId: "" };
  const answer = await fetch(endpoint, {
    method: "POST",
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    body: JSON.stringify({ room_name: room }),
  });
  if (!answer.ok) throw new Error(`status ${answer.status}: ${await answer.text()}`);
  const { server_url, participant_token, dispatch_id } = await answer.json();
  return { url: server_url, token: participant_token, dispatchId: dispatch_id };
}

// Resolve when the samples of this track that were played last have a loud one among them.
function sound(track) {
  document.body.append(track.attach()); // Chromium decodes a remote track only for a media element
  const analyser = new AnalyserNode(audio, { fftSize: 512 });
  audio.createMediaStreamSource(new MediaStream([track.mediaStreamTrack])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      if (!samples.some((sample) => Math.abs(sample) > LOUD)) return;
      clearInterval(timer);
      resolve();
    }, POLL_MS);
  });
}
