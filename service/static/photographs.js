/** Where a photograph comes from: chosen, dropped, pasted, or taken. */

export class Photographs {
  #onPhoto;
  #input;

  /**
   * @param {HTMLInputElement} input for files
   * @param {HTMLElement} frame lights up where a photograph may be dropped
   * @param {(photo: File, isFile: boolean) => void} onPhoto is told each one, and whether it is
   *   a file on the visitor's disk
   */
  constructor(input, frame, onPhoto) {
    this.#input = input;
    this.#onPhoto = onPhoto;
    this.watch(input);
    document.addEventListener("paste", ({ clipboardData }) => {
      this.#take(clipboardData.files, false);
    });
    this.#watchDrops(frame);
  }

  choose() {
    this.#input.click();
  }

  /** Take what is chosen in `input`, also the same file twice. */
  watch(input) {
    input.addEventListener("change", () => {
      this.#take([...input.files]);
      input.value = "";
    });
  }

  #take(files, isFile = true) {
    if (files.length) {
      this.#onPhoto(files[0], isFile);
    }
  }

  /** Anywhere on the page: a file that misses its mark would replace the page otherwise. */
  #watchDrops(frame) {
    const light = (on) => frame.classList.toggle("expectant", on);
    addEventListener("dragover", (event) => {
      event.preventDefault();
      light(event.dataTransfer.types.includes("Files"));
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) {
        light(false);
      }
    });
    addEventListener("drop", (event) => {
      event.preventDefault();
      light(false);
      this.#take(event.dataTransfer.files);
    });
  }
}
