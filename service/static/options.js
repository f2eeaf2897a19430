/** The options: what a form says of a painting, as parameters of `POST /stylize`. */

import { Mixer } from "./mixer.js";

const SIDES_PX = [256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384];
const MOST_SEED = 2 ** 31;

export class Options {
  #form;
  #facts;
  #mixer;
  #style = null;

  /**
   * @param {HTMLFormElement} form
   * @param {object} facts of the service: sizes that it allows
   * @param {HTMLTemplateElement} mixerRow see mixer.js
   * @param {() => void} onChange is called once something else is wanted
   */
  constructor(form, facts, mixerRow, onChange) {
    this.#form = form;
    this.#facts = facts;
    this.#mixer = new Mixer(form.querySelector("#mixer"), mixerRow);
    this.#offerSides();
    form.addEventListener("input", () => this.#showStrength());
    form.addEventListener("change", () => {
      if (form.checkValidity()) {
        onChange();
      }
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    this.#showStrength(); // browsers keep what was in a form when a page is loaded again
  }

  /** Offer what can be done with `style`. */
  adapt(style, partners) {
    this.#style = style;
    this.#field("seed-option").hidden = !style.has_noise;
    this.#mixer.offer(style, partners);
  }

  /** What is wanted now; what the service would do anyway is left out. */
  get parameters() {
    const { value: maxSide } = this.#field("max-side");
    const wanted = {
      style: this.#mixer.text,
      max_side: Number(maxSide) === this.#facts.default_max_side_px ? "" : maxSide,
      strength: this.#strength === 1 ? "" : String(this.#strength),
      keep_colors: this.#field("keep-colors").checked ? "true" : "",
      seed: this.#style.has_noise ? this.#field("seed").value.replace(/^0$/, "") : "",
      format: this.#field("format").value,
      quality: this.#field("quality").value,
    };
    return Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== ""));
  }

  /** Name of what is wanted, for people. */
  get title() {
    return this.#mixer.title;
  }

  vary() {
    this.#field("seed").value = Math.floor(Math.random() * MOST_SEED);
  }

  get #strength() {
    return Number(this.#field("strength").value) / 100;
  }

  #field(id) {
    return this.#form.querySelector(`#${id}`);
  }

  #showStrength() {
    this.#field("strength-value").textContent = `${this.#field("strength").value} %`;
  }

  #offerSides() {
    const { default_max_side_px: usual, max_side_px: most } = this.#facts;
    const sides = new Set([...SIDES_PX.filter((side) => side < most), usual, most]);
    for (const side of [...sides].sort((a, b) => a - b)) {
      const isUsual = side === usual;
      this.#field("max-side").add(new Option(`${side} px`, side, isUsual, isUsual));
    }
  }
}
