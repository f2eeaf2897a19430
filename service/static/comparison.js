/** Before and after: a painting over its photograph, as far as a slider says. */

export class Comparison {
  #root;
  #before;
  #after;
  #slider;
  #urls = [];

  constructor(root) {
    this.#root = root;
    this.#before = root.querySelector(".before");
    this.#after = root.querySelector(".after");
    this.#slider = root.querySelector("input");
    this.#slider.addEventListener("input", () => this.#split());
    // A photograph that the browser cannot show has no before.
    this.#before.addEventListener("error", () => root.classList.add("lone"));
  }

  /** Show a photograph that is not painted yet. */
  showPhoto(photo) {
    this.#forget();
    this.#root.hidden = false;
    this.#root.classList.remove("lone");
    this.#root.classList.add("unpainted");
    this.#before.src = this.#url(photo);
    this.#after.removeAttribute("src");
    this.#slider.value = 100;
    this.#split();
  }

  /**
   * Show the painting of the present photograph, unless `signal` is aborted before it is ready;
   * gives a URL of it, good until the next photograph.
   */
  async showPainting(blob, description, signal) {
    const url = this.#url(blob);
    const painting = Object.assign(new Image(), { className: "after", alt: description, src: url });
    await painting.decode().catch(() => {});
    signal.throwIfAborted();
    this.#after.replaceWith(painting);
    this.#after = painting;
    this.#root.classList.remove("unpainted");
    return url;
  }

  clear() {
    this.#forget();
    this.#root.hidden = true;
  }

  #split() {
    const share = Number(this.#slider.value);
    this.#root.style.setProperty("--split", `${share}%`);
    this.#slider.setAttribute("aria-valuetext", `${share} % painting`);
  }

  #url(blob) {
    const url = URL.createObjectURL(blob);
    this.#urls.push(url);
    return url;
  }

  #forget() {
    this.#urls.splice(0).forEach(URL.revokeObjectURL);
  }
}
