// One live stream over fetch(), since EventSource can't send an Authorization header.
//
// Promises: events in order; a reconnect with back-off and jitter that carries Last-Event-ID;
// silence of 40 s counts as a dead connection; 401, 404 and other refusals, and the event
// `ended`, are final. The token goes into the Authorization header and nowhere else.

/** Parser of text/event-stream. `push` takes text in any pieces and gives the whole events. */
export class EventParser {
  #rest = "";
  #data = [];
  #type = "";
  #started = false;
  /** The id of the last event that had one, "" before. */
  lastId = "";
  #id = "";
  /** The server's wish for the pause before a reconnect, ms. */
  retryMs = null;

  push(text) {
    const events = [];
    let buffer = this.#rest + text;
    if (!this.#started && buffer.length > 0) {
      this.#started = true;
      if (buffer.charCodeAt(0) === 0xfeff) buffer = buffer.slice(1);
    }
    let start = 0;
    for (;;) {
      const end = nextBreak(buffer, start);
      if (end === null) break;
      this.#line(buffer.slice(start, end.at), events);
      start = end.next;
    }
    this.#rest = buffer.slice(start);
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#data.length > 0) {
        this.lastId = this.#id;
        events.push({ type: this.#type || "message", data: this.#data.join("\n"), id: this.lastId });
      }
      this.#data = [];
      this.#type = "";
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }
}

/** The next line break at or after `start`: \n, \r\n or \r. A \r at the very end may be half a break. */
function nextBreak(text, start) {
  for (let i = start; i < text.length; i += 1) {
    const c = text.charCodeAt(i);
    if (c === 10) return { at: i, next: i + 1 };
    if (c === 13) {
      if (i + 1 === text.length) return null;
      return { at: i, next: text.charCodeAt(i + 1) === 10 ? i + 2 : i + 1 };
    }
  }
  return null;
}

const WATCHDOG_MS = 40_000;
const LONGEST_PAUSE_MS = 30_000;
/** A link may be opened before the gateway has heard of its order: so often 404 is not final yet. */
const FIRST_MISSES = 3;
const MISS_PAUSE_MS = 1500;

/** The pause before the nth attempt in a row (n from 0): doubled each time, half of it random. */
export function pauseMs(baseMs, attempt, random = Math.random) {
  const full = Math.min(baseMs * 2 ** attempt, LONGEST_PAUSE_MS);
  return full / 2 + (full / 2) * random();
}

/**
 * Follows a stream until it is final or `close()` is called.
 *
 * `onEvent(type, data, id)` has parsed JSON. `onState(state, detail)` tells `connecting`,
 * `live`, `waiting` (for the next attempt; detail: ms), and once one of the final `ended`
 * (detail: the event's data) and `refused` (detail: HTTP status).
 */
export class LiveStream {
  #options;
  #abort = null;
  #timer = 0;
  #attempt = 0;
  #misses = 0;
  #closed = false;
  #lastId = "";
  #retryMs = 1000;
  #wake = () => this.#hurry();

  constructor(options) {
    this.#options = { onEvent() {}, onState() {}, ...options };
    addEventListener("online", this.#wake);
    document.addEventListener("visibilitychange", this.#wake);
    queueMicrotask(() => { if (!this.#closed) this.#connect(); });
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    removeEventListener("online", this.#wake);
    document.removeEventListener("visibilitychange", this.#wake);
    this.#abort?.abort();
  }

  /** Someone looks again, or the network is back: don't sit out the rest of a pause. */
  #hurry() {
    if (this.#timer === 0 || this.#closed || document.visibilityState === "hidden") return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  #finish(state, detail) {
    if (this.#closed) return;
    this.close();
    this.#options.onState(state, detail);
  }

  async #connect() {
    this.#timer = 0;
    const { url, token, onState } = this.#options;
    const abort = new AbortController();
    this.#abort = abort;
    let heard = [performance.now(), Date.now()];
    // By both clocks: the page's own may stand still while the device sleeps, after which what was
    // last told would look new.
    const watchdog = setInterval(() => {
      if (Math.max(performance.now() - heard[0], Date.now() - heard[1]) > WATCHDOG_MS) abort.abort();
    }, 1000);
    onState("connecting");
    let wishMs = null;
    let missed = false;
    try {
      const headers = { Accept: "text/event-stream", Authorization: `Bearer ${token}` };
      if (this.#lastId !== "") headers["Last-Event-ID"] = this.#lastId;
      const response = await fetch(url, {
        headers, signal: abort.signal, cache: "no-store", credentials: "omit", redirect: "error",
      });
      missed = response.status === 404 && this.#misses < FIRST_MISSES;
      if (missed) {
        this.#misses += 1;
      } else if (response.status >= 400 && response.status < 500 && response.status !== 408 && response.status !== 429) {
        abort.abort();
        this.#finish("refused", response.status);
        return;
      } else if (response.status === 200 && response.body) {
        this.#misses = FIRST_MISSES;
        await this.#read(response.body, () => { heard = [performance.now(), Date.now()]; });
      } else {
        const after = Number(response.headers.get("Retry-After"));
        if (after > 0) wishMs = Math.min(after * 1000, LONGEST_PAUSE_MS);
      }
    } catch {
      // A broken connection: tried again below like any other end of the stream.
    } finally {
      clearInterval(watchdog);
      abort.abort();
    }
    if (this.#closed) return;
    if (missed) {
      this.#timer = setTimeout(() => this.#connect(), MISS_PAUSE_MS);
      return;
    }
    const pause = Math.max(pauseMs(this.#retryMs, this.#attempt), wishMs ?? 0);
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.#connect(), pause);
    onState("waiting", pause);
  }

  async #read(body, heard) {
    const { onEvent, onState } = this.#options;
    const reader = body.getReader();
    const decoder = new TextDecoder();
    const parser = new EventParser();
    parser.lastId = this.#lastId;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      for (const event of parser.push(decoder.decode(value, { stream: true }))) {
        if (event.id !== "") this.#lastId = event.id;
        let data;
        try {
          data = JSON.parse(event.data);
        } catch {
          console.warn("riderflow: an event that is not JSON was skipped");
          continue;
        }
        if (this.#closed) return;
        if (this.#attempt !== 0 || event.type === "snapshot") {
          this.#attempt = 0;
          onState("live");
        }
        onEvent(event.type, data, event.id);
        if (event.type === "ended") {
          this.#finish("ended", data);
          return;
        }
      }
      if (parser.retryMs !== null) this.#retryMs = Math.min(parser.retryMs, LONGEST_PAUSE_MS);
    }
  }
}

/** The token in the address's fragment, or null. It stays there, so that a reload works. */
export function tokenFromFragment(hash = location.hash) {
  const token = new URLSearchParams(hash.replace(/^#/, "")).get("token");
  return token && /^[\w.~+/=-]+$/.test(token) ? token : null;
}
