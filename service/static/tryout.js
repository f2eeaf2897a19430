/** The visitor's photograph in every style, small, in place of the gallery's previews. */

import { paint } from "./painting.js";
import { isStop } from "./problems.js";

const SIDE_PX = 320;
const AT_ONCE = 2;

export class Tryout {
  #service;
  #gallery;
  #say;
  #stop = null;

  /** @param {(words: string) => void} say is told how far it is */
  constructor(service, gallery, say) {
    this.#service = service;
    this.#gallery = gallery;
    this.#say = say;
  }

  stop() {
    this.#stop?.abort();
  }

  /** Paint `photo` in every style; ends early where one fails, or `stop` is called. */
  async run(photo, parameters) {
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    const left = this.#gallery.styles;
    const count = left.length;
    let done = 0;
    try {
      this.#say("Making it small");
      const small = await shrink(photo);
      const work = async () => {
        while (left.length) {
          const { id } = left.shift();
          const wanted = { ...parameters, style: id, max_side: SIDE_PX };
          const onStage = (words) => this.#say(`${done} of ${count}. ${words}`);
          const patience = Infinity;
          const picture = await paint(this.#service, small, wanted, { signal, onStage, patience });
          this.#gallery.showOwn(id, picture);
          done += 1;
          this.#say(`${done} of ${count}`);
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      this.#say("Your photograph in every style. Choose one to paint it large.");
    } catch (error) {
      this.#stop.abort();
      this.#say(isStop(error) ? `Stopped after ${done} of ${count}` : `${error.title}. ${error.detail}`);
    }
  }
}

/** A smaller copy of `photo`, or itself where the browser cannot read it. */
async function shrink(photo) {
  try {
    const picture = await createImageBitmap(photo);
    const scale = Math.min(1, (2 * SIDE_PX) / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(picture.width * scale);
    canvas.height = Math.round(picture.height * scale);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    // JPEG knows nothing of transparency.
    const type = photo.type === "image/jpeg" ? photo.type : "image/png";
    const blob = await new Promise((resolve) => {
      canvas.toBlob(resolve, type, 0.95);
    });
    return new File([blob], photo.name, { type });
  } catch {
    return photo;
  }
}
