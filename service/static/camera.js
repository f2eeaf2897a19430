/** The camera: what it sees in a dialog, and one photograph of it. */

const REASONS = {
  NotAllowedError: "The browser does not let this page use the camera. Allow it there, or choose a "
    + "photograph instead.",
  NotFoundError: "There is no camera here. Choose a photograph instead.",
  NotReadableError: "Another program uses the camera.",
};
const WANTED = { video: { facingMode: "environment", width: { ideal: 1920 } } };
const JPEG_QUALITY = 0.95;

export class Camera {
  #dialog;
  #video;
  #shutter;
  #reason;
  #onPhoto;

  constructor(dialog, onPhoto) {
    this.#dialog = dialog;
    this.#video = dialog.querySelector("video");
    this.#shutter = dialog.querySelector("[data-shutter]");
    this.#reason = dialog.querySelector(".problem-detail");
    this.#onPhoto = onPhoto;
    this.#shutter.addEventListener("click", () => this.#shoot());
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => this.#putAway());
  }

  /** Whether a dialog is better than the camera program of the device, which phones have. */
  static get isHere() {
    return Boolean(navigator.mediaDevices) && !matchMedia("(pointer: coarse)").matches;
  }

  async open() {
    this.#reason.textContent = "";
    this.#shutter.disabled = true;
    this.#dialog.showModal();
    try {
      const stream = await navigator.mediaDevices.getUserMedia(WANTED);
      this.#video.srcObject = stream;
      await this.#video.play();
      if (this.#dialog.open) {
        this.#shutter.disabled = false;
        this.#shutter.focus();
      } else {
        this.#putAway(); // closed while the browser asked
      }
    } catch (error) {
      this.#reason.textContent = REASONS[error.name] ?? "The camera does not work.";
    }
  }

  async #shoot() {
    const canvas = document.createElement("canvas");
    canvas.width = this.#video.videoWidth;
    canvas.height = this.#video.videoHeight;
    canvas.getContext("2d").drawImage(this.#video, 0, 0);
    this.#dialog.close();
    const blob = await new Promise((resolve) => {
      canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY);
    });
    this.#onPhoto(new File([blob], "photograph.jpg", { type: "image/jpeg" }), false);
  }

  #putAway() {
    for (const track of this.#video.srcObject?.getTracks() ?? []) {
      track.stop();
    }
    this.#video.srcObject = null;
  }
}
