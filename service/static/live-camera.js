/** The camera as a source of frames: JPEGs no larger than the service paints. */

const REASONS = {
  NotAllowedError: "The browser does not let this page use the camera. Allow it there, and start "
    + "again.",
  NotFoundError: "There is no camera here.",
  NotReadableError: "Another program uses the camera.",
};
const WANTED = { video: { width: { ideal: 640 }, height: { ideal: 480 } }, audio: false };
const JPEG_QUALITY = 0.8;

export class LiveCamera {
  #video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
  #picture = makeCanvas();
  #isOpen = false;
  #side = 0;
  #take = null;

  /**
   * Ask for the camera; what is thrown says in plain words why there is none.
   *
   * @param {() => void} onGone is called where it is taken away again
   */
  async open(onGone) {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers lend the camera only to pages that came over https.");
    }
    try {
      this.#video.srcObject = await navigator.mediaDevices.getUserMedia(WANTED);
      await this.#video.play();
    } catch (error) {
      this.close();
      throw new Error(REASONS[error.name] ?? "The camera does not work.");
    }
    this.#isOpen = true;
    this.#video.srcObject.getVideoTracks()[0].addEventListener("ended", onGone);
  }

  get width() {
    return this.#video.videoWidth;
  }

  get height() {
    return this.#video.videoHeight;
  }

  /** Whether it looks at the person before it, who expects a mirror. */
  get isMirror() {
    const [track] = this.#video.srcObject.getVideoTracks();
    return track.getSettings().facingMode !== "environment";
  }

  /**
   * At each new frame call `take`, with a function that gives it as a JPEG whose longer side is at
   * most `side`: who does not want the frame does not call that. Frames meanwhile are passed over.
   */
  send(side, take) {
    this.#side = side;
    const begins = !this.#take;
    this.#take = take;
    if (begins) {
      this.#wait();
    }
  }

  close() {
    this.#isOpen = false;
    for (const track of this.#video.srcObject?.getTracks() ?? []) {
      track.stop();
    }
  }

  #wait() {
    const next = () => this.#shoot();
    if (this.#video.requestVideoFrameCallback) {
      this.#video.requestVideoFrameCallback(next);
    } else {
      requestAnimationFrame(next);
    }
  }

  async #shoot() {
    if (!this.#isOpen) {
      return;
    }
    await this.#take(() => this.#encode());
    this.#wait();
  }

  async #encode() {
    const { videoWidth, videoHeight } = this.#video;
    const scale = Math.min(1, this.#side / Math.max(videoWidth, videoHeight));
    this.#picture.width = Math.round(videoWidth * scale);
    this.#picture.height = Math.round(videoHeight * scale);
    const { width, height } = this.#picture;
    this.#picture.getContext("2d").drawImage(this.#video, 0, 0, width, height);
    return toJpeg(this.#picture);
  }
}

function makeCanvas() {
  return self.OffscreenCanvas ? new OffscreenCanvas(1, 1) : document.createElement("canvas");
}

function toJpeg(canvas) {
  if (canvas.convertToBlob) {
    return canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
  }
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
}
