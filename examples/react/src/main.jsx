import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { Call } from "./Call.jsx";

function App() {
  // One id for each call: whatever asks Usher again with it gets the same dispatch.
  const [callId, setCallId] = useState(null);
  return (
    <main>
      <h1>Usher with React</h1>
      {callId ? (
        <Call key={callId} callId={callId} onEnd={() => setCallId(null)} />
      ) : (
        <button onClick={() => setCallId(crypto.randomUUID())}>Call the agent</button>
      )}
    </main>
  );
}

createRoot(document.getElementById("root")).render(<StrictMode><App /></StrictMode>);
