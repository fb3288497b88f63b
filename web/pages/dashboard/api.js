// Polls the dashboard's API every two seconds; most answers are a 304. A hidden page does not poll.
// When Usher or Redis is away, the page says so, keeps what it shows, and goes on polling.

import { at, h, say, served, unserved } from "./dom.js";
import { clock } from "./words.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 8000;

export class Feed {
  #path;
  #onData;
  #onMissing;
  #everyMs;
  #etag = "";
  #timer = 0;
  #asking = null;
  #at = 0; // when what is shown was true

  /** `onData(answer)` gets each new answer, `onMissing()` is told that there is no such thing. */
  constructor(path, onData, { onMissing = () => {}, everyMs = EVERY_MS } = {}) {
    this.#path = path;
    this.#onData = onData;
    this.#onMissing = onMissing;
    this.#everyMs = everyMs;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#pause() : this.now()));
    window.addEventListener("online", () => this.now());
    this.now();
  }

  /** Ask for something else from now on. */
  about(path) {
    this.#path = path;
    this.#etag = "";
    this.now();
  }

  slower(everyMs = EVERY_MS) {
    this.#everyMs = everyMs;
  }

  now() {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    if (!document.hidden) this.#ask();
  }

  #pause() {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    live("idle", "Paused");
  }

  async #ask() {
    const asking = new AbortController();
    this.#asking = asking;
    const late = setTimeout(() => asking.abort("late"), PATIENCE_MS);
    let status = 0;
    try {
      const response = await fetch(served(this.#path), {
        headers: this.#etag ? { "If-None-Match": this.#etag } : {},
        cache: "no-store",
        signal: asking.signal,
      });
      status = response.status;
      if (status === 200) {
        const answer = await response.json();
        if (asking !== this.#asking) return;
        this.#etag = response.headers.get("ETag") ?? "";
        at("main").setAttribute("aria-busy", "false");
        this.#onData(answer);
      }
    } catch {
      if (asking !== this.#asking || asking.signal.reason !== "late") {
        if (asking.signal.aborted) return; // another request replaces it, or the page is hidden
      }
    } finally {
      clearTimeout(late);
    }
    if (asking !== this.#asking) return;
    this.#judge(status);
    if (status !== 401) this.#timer = setTimeout(() => this.#ask(), this.#everyMs);
  }

  #judge(status) {
    if (status === 200 || status === 304) {
      this.#at = Date.now();
      live("good", "Live");
      connection("");
    } else if (status === 401) {
      if (!this.#at) return void location.replace(served(signInAddress()));
      live("bad", "Signed out");
      connection("You are signed out.", h("a", { href: signInAddress() }, "Sign in again"));
    } else if (status === 404) {
      live("good", "Live");
      connection("");
      at("main").setAttribute("aria-busy", "false");
      this.#onMissing();
    } else {
      live("bad", this.#at ? `As of ${clock(this.#at)}` : "No figures");
      connection(TROUBLES[status] ?? (status ? `Usher has made a mistake (${status}); its log says more.` : TROUBLES[0]));
    }
  }
}

const TROUBLES = {
  0: "Usher cannot be reached. Check your network and the web processes; this page tries again every two seconds.",
  503: "Redis does not answer, so nobody knows how it is right now. New sessions are left to LiveKit or refused meanwhile (docs/redis.md). This page tries again every two seconds.",
  403: "The dashboard is switched off (USHER_OPERATOR_AUTH).",
};

const signInAddress = () => `/dashboard/login?next=${encodeURIComponent(unserved(location.pathname) + location.search)}`;

function live(tone, text) {
  at("live").dataset.tone = tone;
  say(at("live"), text);
}

function connection(text, ...more) {
  const place = at("connection");
  document.body.classList.toggle("stale", Boolean(text));
  if (place.dataset.text !== text) {
    place.dataset.text = text;
    place.replaceChildren(text, " ", ...more);
  }
  place.hidden = !text;
}
