// The text of one recording: segments as they arrive, words once their times are known, and the player they steer.
//
// All text is set as text. Keys: one stop for Tab; arrows go from there (left and right through times and words, up and
// down through segments), Enter and Space play.

import { clock } from "./sentences.js";

export class TranscriptView {
  #box;
  #audio;
  #texts = []; // the element of each segment's text
  #words = []; // [{start, end, element}], in order of start
  #now = null;
  #url = null;

  constructor(box, audio, name) {
    this.#box = box;
    this.#audio = audio;
    box.tabIndex = 0; // what scrolls must be reached by key, where nothing in it is
    box.setAttribute("aria-label", `Text of ${name}`);
    box.addEventListener("click", (event) => this.#play(event.target));
    box.addEventListener("keydown", (event) => this.#key(event));
    audio.setAttribute("aria-label", name);
    for (const kind of ["play", "seeked", "timeupdate"]) audio.addEventListener(kind, () => this.#follow());
  }

  /** How many segments are shown. */
  get length() {
    return this.#texts.length;
  }

  /** Let the user hear `file`; calls `cannot` where the browser does not play its kind. */
  listenTo(file, cannot) {
    this.#url = URL.createObjectURL(file);
    this.#audio.addEventListener("loadedmetadata", () => this.#measure(), { once: true });
    this.#audio.addEventListener("error", () => {
      this.#setPlayable(false);
      cannot();
    });
    this.#audio.src = this.#url;
    this.#setPlayable(true);
  }

  /** Show segments behind those that are there. */
  add(segments) {
    const atEnd = this.#box.scrollTop + this.#box.clientHeight >= this.#box.scrollHeight - 40;
    for (const segment of segments) {
      const line = document.createElement("div");
      line.className = "segment";
      const time = document.createElement("button");
      time.type = "button";
      time.className = "time";
      time.disabled = this.#audio.hidden;
      time.dataset.start = segment.start;
      time.tabIndex = this.length ? -1 : 0;
      time.textContent = clock(segment.start);
      time.setAttribute("aria-label", `Play from ${clock(segment.start)}`);
      const text = document.createElement("p");
      text.dir = "auto";
      text.textContent = segment.text.trim();
      this.#texts.push(text);
      line.append(time, text);
      this.#box.append(line);
    }
    this.#box.hidden = this.length === 0;
    if (atEnd) this.#box.scrollTop = this.#box.scrollHeight;
  }

  /** Make the text one of words that play, in `language`. Where there are none (a translation), a segment is as one word. */
  finish(segments, words, language) {
    this.#box.lang = language;
    // The same text again is nothing to announce.
    this.#box.setAttribute("aria-live", "off");
    this.add(segments.slice(this.length));
    const waiting = words?.length ? [...words] : null;
    segments.forEach((segment, number) => {
      const text = this.#texts[number];
      const pieces = waiting ? split(segment, waiting) : [{ ...segment, text: segment.text.trim(), timed: true }];
      text.replaceChildren(...pieces.map((piece) => this.#piece(piece)));
    });
    this.#box.scrollTop = 0;
  }

  close() {
    this.#audio.removeAttribute("src");
    if (this.#url) URL.revokeObjectURL(this.#url);
  }

  #setPlayable(playable) {
    this.#audio.hidden = !playable;
    this.#box.classList.toggle("playable", playable);
    this.#box.tabIndex = playable ? -1 : 0;
    for (const time of this.#box.querySelectorAll(".time")) time.disabled = !playable;
  }

  #piece({ text, start, end, timed }) {
    if (!timed) return document.createTextNode(text);
    const element = document.createElement("span");
    element.className = "word";
    element.tabIndex = -1;
    element.dataset.start = start;
    element.textContent = text;
    this.#words.push({ start, end, element });
    return element;
  }

  /** Browsers' own recordings do not say how long they are: looking behind their end makes the browser find out. */
  #measure() {
    if (this.#audio.duration !== Infinity) return;
    this.#audio.addEventListener("durationchange", () => (this.#audio.currentTime = 0), { once: true });
    this.#audio.currentTime = Number.MAX_SAFE_INTEGER;
  }

  #play(target) {
    const start = target.closest("[data-start]")?.dataset.start;
    if (start === undefined || this.#audio.hidden) return;
    for (const other of document.querySelectorAll("audio")) if (other !== this.#audio) other.pause();
    this.#audio.currentTime = Number(start);
    this.#audio.play().catch(() => {}); // its error event tells
  }

  #key(event) {
    const items = [...this.#box.querySelectorAll("[data-start]")];
    const times = items.filter((item) => item.matches(".time"));
    const at = items.indexOf(event.target);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const segment = times.indexOf(event.target.closest(".segment").querySelector(".time"));
    const goal = {
      ArrowRight: items[at + 1],
      ArrowLeft: items[at - 1],
      ArrowDown: times[segment + 1],
      ArrowUp: times[event.target === times[segment] ? segment - 1 : segment],
      Home: items[0],
      End: items.at(-1),
    };
    if (event.key in goal) {
      event.preventDefault();
      if (!goal[event.key]) return;
      for (const item of this.#box.querySelectorAll('[tabindex="0"]')) item.tabIndex = -1;
      goal[event.key].tabIndex = 0;
      goal[event.key].focus();
    } else if ((event.key === "Enter" || event.key === " ") && event.target.matches(".word")) {
      event.preventDefault();
      this.#play(event.target);
    }
  }

  /** Mark the word that is heard, on each frame while it plays: time updates come four times a second only. */
  #follow() {
    const word = this.#wordAt(this.#audio.currentTime);
    if (word !== this.#now) {
      this.#now?.element.classList.remove("now");
      word?.element.classList.add("now");
      this.#now = word;
      if (word && !this.#audio.paused) this.#show(word.element);
    }
    if (!this.#audio.paused) requestAnimationFrame(() => this.#follow());
  }

  /** The last word that begins by `seconds`, unless it has been over for a second. */
  #wordAt(seconds) {
    let low = 0;
    let high = this.#words.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#words[middle].start <= seconds + 0.01) low = middle + 1;
      else high = middle;
    }
    const word = this.#words[low - 1];
    return word && seconds < word.end + 1 ? word : null;
  }

  /** Scroll the text, never the page, to `element`. */
  #show(element) {
    const inside = element.getBoundingClientRect();
    const box = this.#box.getBoundingClientRect();
    if (inside.top < box.top || inside.bottom > box.bottom) {
      this.#box.scrollTop += inside.top - box.top - this.#box.clientHeight / 3;
    }
  }
}

/** A segment's text cut where its words are; takes them off `waiting`. Signs go with the word before them. */
function split(segment, waiting) {
  const pieces = [];
  const text = segment.text.trim();
  let from = 0;
  while (waiting.length) {
    const place = text.indexOf(waiting[0].word, from);
    if (place < 0) break;
    const word = waiting.shift();
    if (place > from) pieces.push({ text: text.slice(from, place), timed: false });
    from = place + word.word.length;
    pieces.push({ text: word.word, start: word.start, end: word.end, timed: true });
  }
  if (from < text.length) pieces.push({ text: text.slice(from), timed: false });
  return pieces;
}
