// What a web application does with Usher: LiveKit's own SDK, and nothing of ours.
// `window.client` is what the test reads and calls.
import { Room, RoomEvent, TokenSource, Track } from "./node_modules/livekit-client/dist/livekit-client.esm.mjs";

const audio = new AudioContext();
const room = new Room();
const client = { room, token: null, agent: null, texts: [], analyser: null };

room.registerTextStreamHandler("lk.transcription", async (reader, participant) => {
  client.texts.push({ from: participant.identity, text: await reader.readAll() });
  show();
});
room.on(RoomEvent.ParticipantConnected, noteAgent);
room.on(RoomEvent.TrackSubscribed, (track, _publication, participant) => {
  if (participant.isAgent && track.kind === Track.Kind.Audio) hear(track);
});
room.on(RoomEvent.Disconnected, show);

function noteAgent(participant) {
  if (participant.isAgent) client.agent = participant.identity;
  show();
}

function hear(track) {
  document.body.append(track.attach()); // Chromium decodes a remote track only for a media element
  client.analyser = new AnalyserNode(audio, { fftSize: 8192, smoothingTimeConstant: 0 });
  audio.createMediaStreamSource(new MediaStream([track.mediaStreamTrack])).connect(client.analyser);
}

function show() {
  document.querySelector("#state").textContent = `${room.state} to ${room.name}, agent: ${client.agent}`;
  document.querySelector("#texts").replaceChildren(
    ...client.texts.map(({ text }) => Object.assign(document.createElement("li"), { textContent: text })),
  );
}

client.join = async (url, headers, options) => {
  client.token = await TokenSource.endpoint(url, { headers }).fetch(options);
  await room.connect(client.token.serverUrl, client.token.participantToken);
  room.remoteParticipants.forEach(noteAgent);
  show();
};

client.whistle = async (toneHz) => {
  const oscillator = new OscillatorNode(audio, { frequency: toneHz });
  const microphone = audio.createMediaStreamDestination();
  oscillator.connect(new GainNode(audio, { gain: 0.3 })).connect(microphone);
  oscillator.start();
  await room.localParticipant.publishTrack(microphone.stream.getAudioTracks()[0], { source: Track.Source.Microphone });
};

client.write = (text) => room.localParticipant.sendText(text, { topic: "lk.chat" });

// The loudest frequency of the agent's track in Hz, or 0 while there is none above -60 dB.
client.loudestHz = () => {
  if (!client.analyser) return 0;
  const levelsDb = new Float32Array(client.analyser.frequencyBinCount);
  client.analyser.getFloatFrequencyData(levelsDb);
  draw(levelsDb);
  const loudest = levelsDb.indexOf(Math.max(...levelsDb));
  return levelsDb[loudest] > -60 ? (loudest * audio.sampleRate) / client.analyser.fftSize : 0;
};

function draw(levelsDb) {
  const { width, height } = document.querySelector("#spectrum");
  const pen = document.querySelector("#spectrum").getContext("2d");
  const bins = (3000 * client.analyser.fftSize) / audio.sampleRate;
  pen.clearRect(0, 0, width, height);
  for (let bin = 0; bin < bins; bin++) {
    const bar = Math.max(0, (levelsDb[bin] + 100) / 100) * height;
    pen.fillRect((bin / bins) * width, height - bar, width / bins, bar);
  }
}

client.leave = () => room.disconnect();

window.client = client;
