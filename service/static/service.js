/** The service over HTTP: every request that the page makes, by URLs relative to the page. */

import { facts } from "./facts.js";
import { Problem } from "./problems.js";

const MIB = 2 ** 20;

export class Service {
  #keys;

  /** @param keys gives the key, and asks a person for one; see keys.js. */
  constructor(keys) {
    this.#keys = keys;
  }

  get key() {
    return this.#keys.current;
  }

  /** Whether pictures have to be fetched with a key, which an `img` cannot send. */
  get needsKey() {
    return this.key !== "";
  }

  async styles() {
    const answer = await this.#withKey(() => this.#get("styles"));
    return (await answer.json()).styles;
  }

  previewUrl(styleId) {
    return new URL(`styles/${styleId}/preview`, document.baseURI).href;
  }

  async preview(styleId) {
    return (await this.#withKey(() => this.#get(`styles/${styleId}/preview`))).blob();
  }

  /**
   * Send one photograph, and give the painting as a blob.
   *
   * @param {File} photo what to paint
   * @param {object} parameters of `POST /stylize`
   * @param {object} options `requestId` to follow it by; `signal` to stop it; `onSent` is told
   *   which part of the photograph has been sent
   */
  async stylize(photo, parameters, { requestId, signal, onSent }) {
    checkSize(photo);
    await checkReadable(photo);
    const form = new FormData();
    form.append("image", photo, photo.name);
    for (const [name, value] of Object.entries(parameters)) {
      form.append(name, value);
    }
    const url = new URL("stylize", document.baseURI);
    const answer = await this.#withKey(() => {
      const headers = { ...this.#headers(), "X-Request-ID": requestId };
      return upload(url, form, { headers, signal, onSent });
    });
    return answer.blob();
  }

  /** How far a request is, or null where nobody here knows: it is done, or at another replica. */
  async progress(requestId, signal) {
    const url = new URL(`requests/${requestId}`, document.baseURI);
    const answer = await fetch(url, { headers: this.#headers(), signal, cache: "no-store" });
    return answer.ok ? answer.json() : null;
  }

  #headers() {
    return this.key ? { Authorization: `Bearer ${this.key}` } : {};
  }

  async #get(path) {
    try {
      return await fetch(new URL(path, document.baseURI), { headers: this.#headers() });
    } catch {
      throw Problem.unreachable();
    }
  }

  /** Send a request, again with each key that a person gives, until one is good or none comes. */
  async #withKey(send) {
    for (;;) {
      const used = this.key;
      const answer = await send();
      if (answer.ok) {
        return answer;
      }
      const problem = await Problem.of(answer);
      if (problem.status !== 401 || !(await this.#keys.replace(used))) {
        throw problem;
      }
    }
  }
}

/** A name for a request; `crypto.randomUUID` is there over HTTPS alone. */
export function newRequestId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Say at once what the service would say once it had been sent too much. */
function checkSize(photo) {
  const most = facts.max_body_bytes;
  if (photo.size > most) {
    const [has, may] = [photo.size, most].map((bytes) => `${(bytes / MIB).toFixed(1)} MiB`);
    const detail = `It has ${has}, and the service takes ${may}. Save it smaller, or as a JPEG.`;
    throw new Problem({ title: "Photograph too large", detail, status: 413 });
  }
}

/** A browser sends nothing of a file that has gone, and calls that a fault of the network. */
async function checkReadable(photo) {
  try {
    await photo.slice(0, 1).arrayBuffer();
  } catch {
    const detail = "It was moved or changed meanwhile, or is a folder. Choose it again.";
    throw new Problem({ title: "The photograph cannot be read", detail, status: 400 });
  }
}

/** As `fetch`, which does not tell how much of a body it has sent. */
function upload(url, body, { headers, signal, onSent }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.responseType = "blob";
    for (const [name, value] of Object.entries(headers)) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = ({ loaded, total }) => onSent(total ? loaded / total : 0);
    request.upload.onload = () => onSent(1);
    request.onload = () => resolve(asResponse(request));
    request.onerror = () => reject(Problem.unreachable());
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    const stop = () => request.abort();
    signal.addEventListener("abort", stop, { once: true });
    request.onloadend = () => signal.removeEventListener("abort", stop);
    signal.throwIfAborted();
    request.send(body);
  });
}

function asResponse(request) {
  const lines = request.getAllResponseHeaders().trim().split(/\r\n/);
  const headers = lines.filter(Boolean).map((line) => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon), line.slice(colon + 1).trim()];
  });
  return new Response(request.response, { status: request.status, headers });
}
