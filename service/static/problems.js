/** What went wrong, in words for people: the service's problem documents, or the network. */

export class Problem extends Error {
  /**
   * @param {object} parts as RFC 9457 names them; `retryAfterS` is null where waiting is no help.
   */
  constructor({ title, detail, status = 0, retryAfterS = null }) {
    super(detail);
    this.title = title;
    this.detail = detail;
    this.status = status;
    this.retryAfterS = retryAfterS;
  }

  /** Whether the same request may succeed when it is sent again. */
  get mayPass() {
    return [0, 401, 408, 429].includes(this.status) || this.status >= 500;
  }

  /** Read the answer of a request that failed. */
  static async of(response) {
    const retryAfterS = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
    const parts = { status: response.status, retryAfterS: retryAfterS >= 0 ? retryAfterS : null };
    try {
      const { title, detail } = await response.json();
      return new Problem({ title, detail: sentence(detail ?? ""), ...parts });
    } catch {
      // Whatever stands between answers in a language of its own.
      const detail = `The answer was ${response.status}. Try again in a moment.`;
      return new Problem({ title: "That did not work", detail, ...parts });
    }
  }

  static unreachable() {
    return new Problem({
      title: "The service cannot be reached",
      detail: "Look whether you are online, then try again.",
    });
  }
}

/** Whether `error` only says that somebody stopped it. */
export function isStop(error) {
  return error.name === "AbortError";
}

/** Show `problem` in `box`, which has places for its title and detail, and a button to try again. */
export function showProblem(box, problem) {
  box.querySelector(".problem-title").textContent = problem.title ?? "Something went wrong";
  box.querySelector(".problem-detail").textContent = problem.detail ?? problem.message;
  box.querySelector("button").hidden = problem instanceof Problem && !problem.mayPass;
  box.hidden = false;
}

function sentence(words) {
  const end = /[.!?]$/.test(words) || !words ? "" : ".";
  return words.charAt(0).toUpperCase() + words.slice(1) + end;
}
