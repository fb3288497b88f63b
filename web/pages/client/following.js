// Follows the dispatch by Usher's server-sent events, read with `fetch`: an EventSource sends no
// Authorization header, and no token belongs in a URL.

const AGAIN_MS = 1000;
const SILENT_MS = 30_000; // Usher says something every 12 s; after so long the connection is dead

/**
 * Calls `on.event(name, data)` for each event until the dispatch has ended or `signal` is aborted.
 * `on.interrupted()` and `on.back()` tell of connections lost and found, `on.over()` of one that is
 * refused for good. `tokens` are tried in turn: the participant's, and then the key, if it may read.
 */
export async function follow(eventsUrl, tokens, on, signal) {
  const left = [...tokens];
  let last = "";
  while (!signal.aborted) {
    const watchdog = new Watchdog(signal);
    try {
      const headers = { Authorization: `Bearer ${left[0]}`, ...(last && { "Last-Event-ID": last }) };
      const response = await fetch(eventsUrl, { headers, cache: "no-store", signal: watchdog.signal });
      if (response.status === 204) return; // it has ended, and we know
      if ([401, 403, 404, 410].includes(response.status)) {
        left.shift();
        if (left.length) continue;
        return void on.over();
      }
      if (response.status === 200) {
        on.back();
        for await (const event of events(response.body, watchdog)) {
          last = event.id;
          on.event(event.name, event.data);
          if (event.name === "end") return;
        }
      }
    } catch {
      // the connection was lost, or nothing came for too long
    } finally {
      watchdog.stop();
    }
    if (signal.aborted) return;
    on.interrupted();
    await new Promise((again) => setTimeout(again, AGAIN_MS));
  }
}

async function* events(body, watchdog) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    watchdog.heard();
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const field = (name) => part.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
      if (field("data")) yield { id: field("id"), name: field("event"), data: JSON.parse(field("data")) };
    }
  }
}

class Watchdog {
  #controller = new AbortController();
  #timer = 0;
  #outer;
  #bark = () => this.#controller.abort();

  constructor(outer) {
    this.#outer = outer;
    outer.addEventListener("abort", this.#bark);
    this.heard();
  }

  get signal() {
    return this.#controller.signal;
  }

  heard() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#bark, SILENT_MS);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener("abort", this.#bark);
  }
}
