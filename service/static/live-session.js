/** One session of the service's /live: frames up, paintings down. docs/live.md has the protocol. */

/** More would only wait in the service, and be shown later. */
const MOST_UNANSWERED = 2;
/** A frame that was refused is never answered; after so long it is not waited for. */
const PATIENCE_MS = 1000;

/** The service goes away, or the way to it: a load balancer may lead to another one. */
const LOST = new Set([1001, 1006]);

const WORDS_OF_CODES = {
  1001: "The service was stopped. Start again in a moment.",
  1006: "The connection was lost. Look whether you are online, then start again.",
  1009: "The camera's pictures are too large for the service.",
  1011: "The service met an error of its own. Start again.",
};

export class LiveSession {
  #socket;
  #listeners;
  #sent = 0;
  #answered = 0;
  #sentAt = 0;
  #said = "";
  #wasOpen = false;
  #wasReady = false;
  #asked;
  #parameters;

  /**
   * @param {string} key empty where none is needed
   * @param {object} parameters members of the protocol's `start`
   * @param {object} listeners `onReady`, `onSide(px)`, `onPainting({number, blob})`,
   *   `onProblem(words)`, and `onEnd({words, wasLost})` at the end, unless that was asked for;
   *   `wasLost` is whether another session may go on with it
   */
  constructor(key, parameters, listeners) {
    this.#listeners = listeners;
    this.#asked = JSON.stringify(parameters);
    this.#parameters = parameters;
    const url = new URL("live", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    this.#socket = new WebSocket(url);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.addEventListener("open", () => {
      this.#wasOpen = true;
      this.#say({ type: "start", version: 1, ...(key && { key }), ...this.#parameters });
    });
    this.#socket.addEventListener("message", ({ data }) => this.#hear(data));
    this.#socket.addEventListener("close", (event) => this.#end(event));
  }

  /** Send a frame, which `encode` gives, unless there are enough under way. */
  async send(encode) {
    const waits = performance.now() - this.#sentAt < PATIENCE_MS;
    if (waits && this.#sent - this.#answered >= MOST_UNANSWERED) {
      return;
    }
    const frame = await encode();
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#sent += 1;
      this.#sentAt = performance.now();
      this.#socket.send(frame);
    }
  }

  /** Paint the frames from now on by other parameters, if they differ. */
  change(parameters) {
    const asked = JSON.stringify(parameters);
    if (asked === this.#asked) {
      return;
    }
    [this.#asked, this.#parameters] = [asked, parameters];
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#say({ type: "change", ...parameters });
    } // else `start` will say so
  }

  close() {
    this.#listeners = { onEnd() {} };
    this.#socket.close(1000);
  }

  #say(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #hear(data) {
    if (typeof data !== "string") {
      this.#answered = new DataView(data).getUint32(0);
      const blob = new Blob([data.slice(4)], { type: "image/jpeg" });
      this.#listeners.onPainting?.({ number: this.#answered, blob });
      if (this.#said) { // what was wrong with frames before this one is over
        this.#said = "";
        this.#listeners.onReady?.();
      }
      return;
    }
    const said = JSON.parse(data);
    if (said.type === "error") {
      this.#answered = Math.max(this.#answered, said.frame ?? 0);
      this.#said = sentence(said.problem.detail);
      this.#listeners.onProblem?.(this.#said);
      return;
    }
    if (said.type === "ready") {
      this.#said = "";
      this.#wasReady = true;
      this.#listeners.onReady?.();
    }
    this.#listeners.onSide?.(said.painted_side);
  }

  #end({ code, reason }) {
    const lost = this.#wasOpen ? WORDS_OF_CODES[code] : "Live pictures cannot be had here now.";
    const words = this.#said || lost || sentence(reason) || "The service has ended it.";
    this.#listeners.onEnd({ words, wasLost: this.#wasReady && LOST.has(code) });
  }
}

function sentence(words) {
  const end = /[.!?]$/.test(words) || !words ? "" : ".";
  return words.charAt(0).toUpperCase() + words.slice(1) + end;
}
