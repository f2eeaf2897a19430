/** The key of a service that asks for one: kept for this tab alone, and asked for in a dialog. */

const SLOT = "atelier-key";
const UNKNOWN = "That key is not known here. Look whether it is whole.";

export class Keys {
  #dialog;
  #asking = null;

  constructor(dialog) {
    this.#dialog = dialog;
    this.current = sessionStorage.getItem(SLOT) ?? "";
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close(dialog.querySelector("input").value.trim());
    });
  }

  /**
   * Get another key than `used`, which was refused; false where the person has none to give.
   * Several requests that are refused at once ask once.
   */
  async replace(used) {
    if (this.current !== used) {
      return true; // another request has asked meanwhile
    }
    this.#asking ??= this.#ask(used).finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #ask(used) {
    const input = this.#dialog.querySelector("input");
    this.#dialog.querySelector(".problem-detail").textContent = used ? UNKNOWN : "";
    input.value = "";
    this.#dialog.returnValue = "";
    this.#dialog.showModal();
    input.focus();
    await new Promise((resolve) => {
      this.#dialog.addEventListener("close", resolve, { once: true });
    });
    if (!this.#dialog.returnValue) {
      return false;
    }
    this.current = this.#dialog.returnValue;
    sessionStorage.setItem(SLOT, this.current);
    return true;
  }
}
