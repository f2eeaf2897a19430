/** The gallery: one radio button a style, with a picture that it painted. */

export class Gallery {
  #root;
  #template;
  #service;
  #byId = new Map();
  #urls = [];
  #inSight;

  constructor(root, template, service, onChoose) {
    this.#root = root;
    this.#template = template;
    this.#service = service;
    this.#inSight = new IntersectionObserver((entries) => this.#load(entries), {
      rootMargin: "200px",
    });
    root.addEventListener("change", () => onChoose(this.chosen));
  }

  get styles() {
    return [...this.#byId.values()].map(({ style }) => style);
  }

  get chosen() {
    const radio = this.#root.querySelector("input:checked");
    return radio ? this.#byId.get(radio.value).style : null;
  }

  style(styleId) {
    return this.#byId.get(styleId)?.style;
  }

  /** Show `styles`, the first of them chosen. */
  fill(styles) {
    styles.forEach((style, place) => {
      const card = this.#template.content.cloneNode(true).firstElementChild;
      const radio = card.querySelector("input");
      radio.value = style.id;
      radio.checked = place === 0;
      card.querySelector(".title").textContent = style.title;
      card.querySelector(".artist").textContent = style.artist;
      this.#root.append(card);
      this.#byId.set(style.id, { style, image: card.querySelector("img") });
    });
    this.showPreviews();
  }

  /** Show what each style painted for the zoo. */
  showPreviews() {
    this.#urls.splice(0).forEach(URL.revokeObjectURL);
    for (const { image } of this.#byId.values()) {
      image.classList.remove("own");
      this.#inSight.observe(image);
    }
  }

  /** Show what a style made of the visitor's own photograph. */
  showOwn(styleId, blob) {
    const { image } = this.#byId.get(styleId);
    this.#inSight.unobserve(image);
    image.classList.add("own");
    this.#show(image, blob);
  }

  /** Load the pictures that come into sight. */
  async #load(entries) {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) {
        continue;
      }
      this.#inSight.unobserve(target);
      const styleId = target.closest("label").querySelector("input").value;
      if (this.#service.needsKey) {
        this.#service.preview(styleId).then((blob) => {
          if (!target.classList.contains("own")) {
            this.#show(target, blob);
          }
        }, () => {});
      } else {
        target.src = this.#service.previewUrl(styleId);
      }
    }
  }

  #show(image, blob) {
    const url = URL.createObjectURL(blob);
    this.#urls.push(url);
    image.src = url;
  }
}
