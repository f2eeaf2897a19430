/**
 * Live: what the camera sees, painted while it looks.
 *
 * `startLive({ canvas, say, getStyle, getKey, onEnd })` asks for the camera and a session of the
 * service, and draws what comes back on `canvas` until somebody stops it. It gives
 * `{ stop(), change() }`, or null where it could not begin, of which `say` has then told people.
 * `getStyle` and `getKey` are asked when they are needed; `change()` asks again, and is called here
 * whenever something on the page is chosen. `onEnd` is called once, however it ends.
 */

import { LiveCamera } from "./live-camera.js";
import { LiveSession } from "./live-session.js";

/** A service that starts again is back within some seconds. */
const TRY_EVERY_MS = 1500;
const MOST_TRIES = 20;

const $ = (id) => document.getElementById(id);

export async function startLive({ canvas, say, getStyle, getKey, onEnd }) {
  const camera = new LiveCamera();
  say("Waiting for the camera");
  try {
    await camera.open(() => stop("The camera was taken away."));
  } catch (error) {
    say(error.message);
    return null;
  }
  const view = new View(canvas, camera);
  const knob = $("live-steadiness");
  const parameters = () => ({ style: getStyle(), steadiness: knob.valueAsNumber / 100 });
  let session = null;
  let tries = 0;
  let retry = 0;
  let over = false;

  const end = (words) => {
    if (!over) {
      over = true;
      camera.close();
      view.close();
      document.removeEventListener("change", change);
      say(words);
      onEnd();
    }
  };
  const stop = (words) => {
    clearTimeout(retry);
    session?.close();
    end(words);
  };
  const begin = () => {
    view.beginAnew();
    session = new LiveSession(getKey(), parameters(), {
      onSide: (side) => camera.send(side, (encode) => session.send(encode)),
      onPainting: (picture) => view.draw(picture),
      onProblem: say,
      onReady: () => {
        tries = 0;
        say("Painting");
      },
      onEnd: ({ words, wasLost }) => {
        if ((wasLost || tries > 0) && tries < MOST_TRIES) {
          tries += 1;
          say("The connection was lost: connecting again");
          retry = setTimeout(begin, TRY_EVERY_MS);
        } else {
          end(words);
        }
      },
    });
  };
  const change = () => session.change(parameters());
  document.addEventListener("change", change);
  begin();

  return { change, stop: () => stop("Stopped") };
}

/** What is shown: the last painting, as large as the camera's picture, and how many come. */
class View {
  #canvas;
  #drawing;
  #rate = $("live-rate");
  #drawn = 0;
  #last = 0;
  #timer;

  constructor(canvas, camera) {
    this.#canvas = canvas;
    canvas.width = camera.width;
    canvas.height = camera.height;
    canvas.classList.toggle("mirrored", camera.isMirror);
    this.#drawing = canvas.getContext("2d");
    let since = performance.now();
    this.#timer = setInterval(() => {
      const now = performance.now();
      const rate = (1000 * this.#drawn) / (now - since);
      this.#rate.value = `${rate.toFixed(rate < 10 ? 1 : 0)} frames a second`;
      [since, this.#drawn] = [now, 0];
    }, 1000);
  }

  /** Paintings are numbered from the start again. */
  beginAnew() {
    this.#last = 0;
  }

  /** Draw a painting, unless a newer one is there already. */
  async draw({ number, blob }) {
    const bitmap = await createImageBitmap(blob);
    if (number > this.#last) {
      this.#last = number;
      this.#drawn += 1;
      this.#drawing.drawImage(bitmap, 0, 0, this.#canvas.width, this.#canvas.height);
    }
    bitmap.close();
  }

  close() {
    clearInterval(this.#timer);
    this.#rate.value = "";
  }
}
