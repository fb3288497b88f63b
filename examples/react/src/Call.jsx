import { RoomAudioRenderer, SessionProvider, useAgent, useSession } from "@livekit/components-react";
import { TokenSource } from "livekit-client";
import { useEffect, useState } from "react";

const { VITE_USHER_URL: USHER_URL, VITE_USHER_PUBLISHABLE_KEY: KEY } = import.meta.env;

/** One call. It is mounted when somebody wants to talk, because useSession fetches a token at once. */
export function Call({ callId, onEnd }) {
  const [source] = useState(() =>
    TokenSource.endpoint(`${USHER_URL}/api/v1/dispatches`, {
      headers: { Authorization: `Bearer ${KEY}`, "Idempotency-Key": callId },
    }),
  );
  const [error, setError] = useState(null);
  const session = useSession(source);

  useEffect(() => {
    const unmounted = new AbortController();
    session
      .start({ signal: unmounted.signal, tracks: { microphone: { enabled: false } } })
      .catch((reason) => unmounted.signal.aborted || setError(reason));
    return () => unmounted.abort();
  }, []);

  return (
    <SessionProvider session={session}>
      <p role="status">{error ? `That did not work: ${error.message}` : <Agent session={session} />}</p>
      <Microphone session={session} />
      <button onClick={() => session.end().finally(onEnd)}>Hang up</button>
      <RoomAudioRenderer />
    </SessionProvider>
  );
}

function Agent({ session }) {
  const agent = useAgent(session);
  const dispatchId = session.room.localParticipant.attributes["usher.dispatch_id"];
  return (
    <>
      Agent: {agent.failureReasons?.join(" ") ?? agent.state}. Dispatch: <code>{dispatchId ?? "…"}</code>
    </>
  );
}

function Microphone({ session }) {
  const { localParticipant } = session.room;
  const on = localParticipant.isMicrophoneEnabled;
  return (
    <button disabled={!session.isConnected} onClick={() => localParticipant.setMicrophoneEnabled(!on)}>
      {on ? "Mute" : "Turn microphone on"}
    </button>
  );
}
