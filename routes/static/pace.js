// When a page draws what has changed: with the next frame, and amid many changes no more than lets the rest of the page
// have its turns, and the machine's other programs theirs.

// So many changes in so long are more than anybody can follow.
const HURRIED = 15;
const WINDOW_MS = 1000;
// Then it rests so many times as long as drawing took, the browser's part of it included.
const REST = 3;
const REST_MAX_MS = 250;

/** Run something with the next frame; where nobody looks there are none, so at once. @param {() => void} run */
export const nextFrame = (run) => (document.hidden ? setTimeout(run) : requestAnimationFrame(run));

/** Run something when the next frame is painted. @param {() => void} run */
export const afterFrame = (run) => nextFrame(() => setTimeout(run));

/** Run something when there is nothing else to do. @param {() => void} run */
export const whenIdle = (run) => (globalThis.requestIdleCallback ? requestIdleCallback(run, { timeout: 2000 }) : setTimeout(run, 200));

export class Pace {
  #draw;
  #recent = 0;
  #scheduled = false;
  /** Whether there is more to draw than what is scheduled. */ #again = false;
  #rested = 0;

  /** @param {() => void} draw */
  constructor(draw) {
    this.#draw = draw;
  }

  get isHurried() {
    return this.#recent > HURRIED;
  }

  /** So many changes have come. @param {number} changes @param {() => void} calmed told when they are a while ago */
  count(changes, calmed) {
    this.#recent += changes;
    setTimeout(() => {
      this.#recent -= changes;
      calmed();
    }, WINDOW_MS);
  }

  /** Draw soon. */
  soon() {
    if (this.#scheduled) {
      this.#again = true;
      return;
    }
    this.#scheduled = true;
    const wait = this.isHurried ? this.#rested - performance.now() : 0;
    if (wait > 0) setTimeout(() => nextFrame(this.#now), wait);
    else nextFrame(this.#now);
  }

  #now = () => {
    this.#again = false;
    const began = performance.now();
    // When the browser has painted it.
    setTimeout(() => {
      const now = performance.now();
      this.#rested = now + Math.min(REST_MAX_MS, REST * (now - began));
      this.#scheduled = false;
      if (this.#again) this.soon();
    });
    this.#draw();
  };
}
