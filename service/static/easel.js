/** The easel: an invitation, a photograph, its painting, or what went wrong with it. */

import { Comparison } from "./comparison.js";
import { leave } from "./focus.js";
import { showProblem } from "./problems.js";

export class Easel {
  #parts;
  #comparison;

  /** @param {object} parts elements by name; see main.js */
  constructor(parts) {
    this.#parts = parts;
    this.#comparison = new Comparison(parts.comparison);
  }

  /** Hang a painting beside the invitation. */
  showExample(image, style) {
    const { example } = this.#parts;
    example.alt = `An example: a photograph painted in ${style.title}`;
    example.src = image;
  }

  showPhoto(photo) {
    const { empty, caption, actions, problem } = this.#parts;
    actions.hidden = false;
    leave(empty, this.#another);
    leave(problem, this.#another);
    caption.textContent = "";
    this.#comparison.showPhoto(photo);
  }

  /** Say what happens; `sent` is the part of the photograph that has been sent, or null. */
  showWork(words, sent) {
    const { work, workWords, workBar, problem } = this.#parts;
    work.hidden = false;
    leave(problem, work.querySelector("button"));
    workWords.textContent = words;
    if (sent === null) {
      workBar.removeAttribute("value");
    } else {
      workBar.value = sent;
    }
    this.#announce(words);
  }

  /** Show the painting, unless `signal` says that another is wanted; gives a URL of it. */
  async showPainting(blob, title, signal) {
    const { comparison, caption } = this.#parts;
    const description = `Your photograph, painted in ${title}`;
    const url = await this.#comparison.showPainting(blob, description, signal);
    const { naturalWidth, naturalHeight } = comparison.querySelector(".after");
    caption.textContent = `${title}, ${naturalWidth} × ${naturalHeight} px`;
    this.#rest(`Painted in ${title}`, comparison.querySelector("input"));
    return url;
  }

  /** Show what went wrong; an earlier painting stays. */
  showProblem(problem) {
    const box = this.#parts.problem;
    showProblem(box, problem);
    this.#rest("", box.querySelector("button:not([hidden])") ?? this.#another);
  }

  get #another() {
    return this.#parts.actions.querySelector("[data-choose]");
  }

  #rest(words, next) {
    leave(this.#parts.work, next);
    this.#announce(words);
  }

  #announce(words) {
    const { status } = this.#parts;
    // The same words again would be read again.
    if (status.textContent !== words) {
      status.textContent = words;
    }
  }
}
