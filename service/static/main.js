/** Where the parts of the page meet: what a visitor does, and what then happens. */

import { Camera } from "./camera.js";
import { curlCommand } from "./curl.js";
import { Easel } from "./easel.js";
import { facts } from "./facts.js";
import { leave } from "./focus.js";
import { Gallery } from "./gallery.js";
import { Keys } from "./keys.js";
import { Options } from "./options.js";
import { paint } from "./painting.js";
import { Photographs } from "./photographs.js";
import { isStop, showProblem } from "./problems.js";
import { Service } from "./service.js";
import { Tryout } from "./tryout.js";

/** A choice by arrow keys runs through others; each would be painted without a moment's wait. */
const SETTLE_MS = 400;
const SUFFIXES = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp" };

const $ = (id) => document.getElementById(id);

const service = new Service(new Keys($("key")));
const gallery = new Gallery($("gallery"), $("style-template"), service, chooseStyle);
const options = new Options($("options"), facts, $("mixer-template"), () => paintSoon(SETTLE_MS));
const photographs = new Photographs($("file"), $("frame"), takePhoto);
const camera = new Camera($("camera"), takePhoto);
const tryout = new Tryout(service, gallery, (words) => {
  $("try-status").textContent = words;
});
const easel = new Easel({
  empty: $("empty"),
  example: $("example"),
  comparison: $("comparison"),
  work: $("work"),
  workWords: $("work-words"),
  workBar: $("work-bar"),
  problem: $("problem"),
  caption: $("caption"),
  status: $("status"),
  actions: $("actions"),
});

let photo = null;
let settling = 0;
let present = new AbortController();
let live = null;

/** Take a photograph, and paint it at once. */
function takePhoto(file, isFile) {
  photo = file;
  live?.stop();
  tryout.stop();
  gallery.showPreviews();
  easel.showPhoto(photo);
  $("download").hidden = true;
  $("command").hidden = true;
  $("copied").textContent = "";
  $("keep").hidden = isFile;
  if (!isFile) {
    offer($("keep"), URL.createObjectURL(photo), photo.name);
  }
  $("try-all").disabled = !gallery.chosen;
  paintSoon(0);
}

function chooseStyle(style) {
  const partners = style.mixes_with.map((id) => gallery.style(id));
  options.adapt(style, partners);
  $("about").textContent = `${style.artist}, ${style.year}. ${style.description}`;
  $("variant").hidden = !style.has_noise;
  showExample(style);
  paintSoon(SETTLE_MS);
}

async function showExample(style) {
  if (photo) {
    return;
  }
  const image = service.needsKey
    ? await service.preview(style.id).then((blob) => URL.createObjectURL(blob), () => null)
    : service.previewUrl(style.id);
  if (image && style === gallery.chosen) {
    easel.showExample(image, style);
  }
}

/** Paint what is wanted, unless something else is before `ms` have passed. */
function paintSoon(ms) {
  stopPainting();
  const { signal } = present = new AbortController();
  if (photo && gallery.chosen) {
    settling = setTimeout(paintNow, ms, signal);
  }
}

function stopPainting() {
  clearTimeout(settling);
  present.abort();
}

async function paintNow(signal) {
  const { parameters, title } = options;
  const onStage = (words, sent) => signal.aborted || easel.showWork(words, sent);
  onStage("Sending the photograph", 0);
  try {
    const painting = await paint(service, photo, parameters, { signal, onStage });
    signal.throwIfAborted();
    await showPainting(painting, parameters, title, signal);
  } catch (error) {
    if (signal === present.signal) {
      const stopped = { title: "Stopped", detail: "What was chosen last is not painted." };
      easel.showProblem(isStop(error) ? stopped : error);
    }
  }
}

async function showPainting(painting, parameters, title, signal) {
  const label = parameters.style.includes(":") ? "mixture" : parameters.style;
  const output = `${photo.name.replace(/\.[^.]*$/, "")}-${label}.${SUFFIXES[painting.type]}`;
  offer($("download"), await easel.showPainting(painting, title, signal), output);
  $("command").hidden = false;
  $("command-text").textContent = curlCommand({
    url: new URL("stylize", document.baseURI).href,
    fileName: photo.name,
    parameters,
    output,
    needsKey: service.needsKey,
  });
}

/** Let `link` save what is behind `url`. */
function offer(link, url, name) {
  link.href = url;
  link.download = name;
  link.hidden = false;
}

async function tryAll() {
  $("try-stop").hidden = false;
  leave($("try-all"), $("try-stop"));
  await tryout.run(photo, options.parameters);
  $("try-all").hidden = false;
  leave($("try-stop"), $("try-all"));
}

async function copyCommand() {
  const { textContent: command } = $("command-text");
  try {
    await navigator.clipboard.writeText(command);
    $("copied").textContent = "Copied";
  } catch {
    // Over plain HTTP there is no clipboard.
    getSelection().selectAllChildren($("command-text"));
    $("copied").textContent = "Selected: copy it as you copy text";
  }
}

async function fillGallery() {
  leave($("gallery-problem"), $("styles"));
  try {
    gallery.fill(await service.styles());
    chooseStyle(gallery.chosen);
    $("try-all").disabled = !photo;
  } catch (error) {
    showProblem($("gallery-problem"), error);
  }
}

/** The part for moving pictures: live.js is loaded once somebody wants it. */
function openLive() {
  const button = $("live-open");
  const show = (isOpen) => {
    button.textContent = isOpen ? "Stop the camera" : "Start the camera";
    button.setAttribute("aria-expanded", isOpen);
    $("live-canvas").hidden = !isOpen;
    if (isOpen) { // it has moved to the easel's place
      document.querySelector("main").scrollIntoView({ behavior: "instant" });
    }
  };
  button.addEventListener("click", async () => {
    button.disabled = true;
    if (live) {
      live.stop();
    } else {
      const { startLive } = await import("./live.js");
      live = await startLive({
        canvas: $("live-canvas"),
        say: (words) => {
          $("live-status").textContent = words;
        },
        getStyle: () => options.parameters.style,
        getKey: () => service.key,
        onEnd: () => {
          live = null;
          show(false);
        },
      });
      show(Boolean(live));
    }
    button.disabled = false;
  });
  $("live").hidden = false;
}

for (const button of document.querySelectorAll("[data-choose]")) {
  button.addEventListener("click", () => photographs.choose());
}
for (const button of document.querySelectorAll("[data-shoot]")) {
  button.addEventListener("click", () => (Camera.isHere ? camera.open() : $("capture").click()));
}
photographs.watch($("capture"));
$("stop").addEventListener("click", stopPainting);
$("again").addEventListener("click", () => paintSoon(0));
$("variant").addEventListener("click", () => {
  options.vary();
  paintSoon(0);
});
$("try-all").addEventListener("click", tryAll);
$("try-stop").addEventListener("click", () => tryout.stop());
$("copy").addEventListener("click", copyCommand);
$("gallery-again").addEventListener("click", fillGallery);
if (facts.live) {
  openLive();
}
fillGallery();
