/** One painting from its photograph: sent, followed while it waits, tried again where told to. */

import { Problem } from "./problems.js";
import { newRequestId } from "./service.js";

const LOOK_EVERY_MS = 500;
const PATIENCE = 5;

/**
 * Paint `photo`; gives the painting as a blob.
 *
 * @param {AbortSignal} signal stops it
 * @param {(words: string, sent: ?number) => void} onStage `sent` is the part that has been sent,
 *   null once all of it has
 * @param {number} patience how often to send it where the service says to come again
 */
export async function paint(
  service,
  photo,
  parameters,
  { signal, onStage, patience = PATIENCE },
) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await send(service, photo, parameters, { signal, onStage });
    } catch (error) {
      const mayHelp = error instanceof Problem && error.retryAfterS !== null;
      if (!mayHelp || tries >= patience) {
        throw error;
      }
      await countDown(error, { signal, onStage });
    }
  }
}

async function send(service, photo, parameters, { signal, onStage }) {
  const requestId = newRequestId();
  const done = new AbortController();
  const onSent = (part) => {
    if (part < 1) {
      onStage("Sending the photograph", part);
    } else if (!done.signal.aborted) {
      onStage("Painting", null);
      follow(service, requestId, done.signal, onStage);
    }
  };
  try {
    return await service.stylize(photo, parameters, { requestId, signal, onSent });
  } finally {
    done.abort();
  }
}

/** Say how far a request is, until `done`; whoever does not know says nothing. */
async function follow(service, requestId, done, onStage) {
  for (;;) {
    await pause(LOOK_EVERY_MS, done).catch(() => {});
    const progress = done.aborted ? null : await service.progress(requestId, done).catch(() => null);
    if (done.aborted) {
      return;
    }
    if (progress) {
      onStage(wordsFor(progress), null);
    }
  }
}

function wordsFor({ stage, jobs_ahead: ahead }) {
  if (stage === "waiting") {
    return ahead === null ? "Waiting for its turn" : `Waiting: ${pictures(ahead)} before yours`;
  }
  const words = {
    reading: "Sending the photograph",
    decoding: "Opening the photograph",
    painting: "Painting",
    encoding: "Letting it dry",
  };
  return words[stage] ?? "Painting";
}

function pictures(count) {
  return count === 1 ? "1 picture" : `${count} pictures`;
}

async function countDown(problem, { signal, onStage }) {
  for (let left = Math.max(problem.retryAfterS, 1); left > 0; left -= 1) {
    onStage(`${problem.title}: trying again in ${left} s`, null);
    await pause(1000, signal);
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) {
      stop();
    }
  });
}
