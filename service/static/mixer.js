/** The mixer: how much of each style, where one network paints several. */

export class Mixer {
  #root;
  #rowTemplate;
  #rows;
  #base = null;
  #partners = [];

  constructor(root, rowTemplate) {
    this.#root = root;
    this.#rowTemplate = rowTemplate;
    this.#rows = root.querySelector("#mixer-rows");
    this.#rows.addEventListener("input", ({ target }) => this.#limit(target));
  }

  /** Offer to mix `partners` into `base`; nothing of them to begin with. */
  offer(base, partners) {
    this.#base = base;
    this.#partners = partners;
    this.#root.hidden = partners.length === 0;
    this.#root.open &&= partners.length > 0;
    this.#rows.replaceChildren(...partners.map((style) => this.#row(style)));
    this.#describe();
  }

  /** The parameter `style`. */
  get text() {
    const shares = this.#shares;
    if (shares.length === 1 && shares[0].style === this.#base) {
      return this.#base.id;
    }
    return shares.map(({ style, percent }) => `${style.id}:${percent / 100}`).join(",");
  }

  /** The same for people. */
  get title() {
    const shares = this.#shares;
    return shares.length === 1 ? shares[0].style.title : named(shares);
  }

  get #sliders() {
    return [...this.#rows.querySelectorAll("input")];
  }

  /** What is mixed, of sum 100; the base takes what the others leave. */
  get #shares() {
    const percents = this.#sliders.map((slider) => Number(slider.value));
    const left = 100 - percents.reduce((sum, percent) => sum + percent, 0);
    return [
      { style: this.#base, percent: left },
      ...this.#partners.map((style, place) => ({ style, percent: percents[place] })),
    ].filter(({ percent }) => percent > 0);
  }

  /** Let `slider` have no more than the others leave. */
  #limit(slider) {
    const others = this.#sliders.filter((other) => other !== slider);
    const taken = others.reduce((sum, other) => sum + Number(other.value), 0);
    slider.value = Math.min(Number(slider.value), 100 - taken);
    this.#describe();
  }

  #describe() {
    for (const slider of this.#sliders) {
      slider.parentElement.querySelector("output").textContent = `${slider.value} %`;
    }
    this.#root.querySelector("#mixer-sum").textContent = named(this.#shares);
  }

  #row(style) {
    const row = this.#rowTemplate.content.cloneNode(true).firstElementChild;
    const slider = row.querySelector("input");
    slider.id = `mix-${style.id}`;
    row.querySelector("label").htmlFor = slider.id;
    row.querySelector("label").textContent = style.title;
    row.querySelector("output").htmlFor = slider.id;
    return row;
  }
}

function named(shares) {
  return shares.map(({ style, percent }) => `${percent} % ${style.title}`).join(", ");
}
