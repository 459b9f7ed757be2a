// One recording, from the user's file to its text: sent as a job, which goes on where the page or the server is closed.

import { ApiError, json, request, upload } from "./api.js";
import { clock, percent, sentenceCase, standing } from "./sentences.js";
import { TranscriptView } from "./transcript.js";

const POLL_MS = 500;
const SLOW_POLL_MS = 3000; // where nobody looks, or the server is away
const PASSING = new Set([0, 401, 408, 429]); // no network, no key, too slow, too much at once; and what is the server's fault
const MIME = { text: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", verbose_json: "application/json" };
const SUFFIX = { text: "txt", srt: "srt", vtt: "vtt", verbose_json: "json" };

export class Row {
  /** Called when the job's id or end is known, and when the row is gone. */
  onChange = () => {};
  /** Called with a sentence for who cannot see. */
  onSaid = () => {};

  #stopped = new AbortController();
  #rendered = new Map(); // format -> promise of its text

  constructor(name, { file = null, fields = [], path = "", id = "" }) {
    this.name = name;
    this.id = id;
    this.requestId = "";
    this.over = false; // whether there is nothing more to cancel
    this.sending = false; // whether it is lost where the page is left
    this.file = file;
    this.fields = fields;
    this.path = path;
    const template = document.getElementById("row-template");
    this.element = template.content.firstElementChild.cloneNode(true);
    this.#part(".name").textContent = name;
    this.#part("progress").setAttribute("aria-label", `Progress of ${name}`);
    this.#part(".format").setAttribute("aria-label", `Format for ${name}`);
    for (const kind of [".again", ".copy", ".download", ".listen"]) this.#label(kind, this.#part(kind).textContent);
    this.#label(".end", "Cancel");
    this.#part(".end").addEventListener("click", () => this.end());
    this.#part(".again").addEventListener("click", () => this.start());
    this.#part(".format").addEventListener("change", () => this.#render().catch(() => {}));
    this.#part(".copy").addEventListener("click", () => this.#copy());
    this.#part(".download").addEventListener("click", () => this.#download());
    this.text = new TranscriptView(this.#part(".transcript"), this.#part("audio"), name);
    this.#part(".listen").hidden = file !== null;
    this.#part(".listen").addEventListener("click", () => this.#choose());
    if (file) this.#listen();
    this.#status("Waiting to be sent");
  }

  /** Send the recording (where it is not at the server yet), and follow its job to the end. */
  async start() {
    this.over = false;
    this.#stopped = new AbortController();
    this.#error("");
    this.element.classList.remove("failed");
    this.#part(".again").hidden = true;
    this.#part("progress").hidden = false;
    this.#label(".end", "Cancel");
    try {
      if (!this.id) await this.#send();
      await this.#follow();
    } catch (error) {
      if (error.name === "AbortError") this.#finish("Cancelled");
      else if (error instanceof ApiError) this.#fail(error.message, PASSING.has(error.status) || error.status >= 500);
      else throw error;
    }
  }

  /** Cancel what runs; remove what is over, from the server too. */
  async end() {
    const remove = this.over;
    this.#stopped.abort();
    try {
      await this.#forget();
    } catch (error) {
      this.#error(error.message);
      return;
    }
    if (remove) this.text.close();
    else this.#finish("Cancelled");
    this.onChange(this, remove);
  }

  async #send() {
    const form = new FormData();
    for (const [name, value] of this.fields) form.append(name, value);
    form.append("file", this.file, this.name);
    const onProgress = (share) => {
      this.#part("progress").value = share;
      this.#status(share < 1 ? `Sending: ${percent(share)}` : "Sent");
    };
    this.sending = true;
    const job = await upload(this.path, form, { Prefer: "respond-async" }, onProgress, this.#stopped.signal).finally(
      () => (this.sending = false),
    );
    this.id = job.id;
    if (this.#stopped.signal.aborted) {
      await this.#forget();
      throw new DOMException("Cancelled", "AbortError");
    }
    this.requestId = job.request_id;
    this.onChange(this, false);
    this.#part("progress").removeAttribute("value");
  }

  async #follow() {
    const { signal } = this.#stopped;
    for (;;) {
      let wait = document.hidden ? SLOW_POLL_MS : POLL_MS;
      try {
        const job = await json(`v1/jobs/${this.id}?after=${this.text.length}`);
        if (signal.aborted) return;
        this.requestId = job.request_id;
        this.text.add(job.segments);
        if (job.status === "completed") return await this.#complete(job);
        if (job.status === "failed") return this.#fail(job.error.message, job.error.type === "server_error");
        if (job.status === "cancelled") return this.#finish("Cancelled");
        this.#status(standing(job));
        if (job.status === "running") this.#part("progress").value = job.progress;
        else this.#part("progress").removeAttribute("value");
      } catch (error) {
        if (error.status !== 0 || signal.aborted) throw error;
        this.#status(`${error.message} Trying again …`);
        wait = SLOW_POLL_MS;
      }
      await pause(wait, signal);
    }
  }

  #listen() {
    this.#part(".mute").hidden = true;
    this.text.listenTo(this.file, () => (this.#part(".mute").hidden = false));
  }

  /** After a reload the browser no longer has the recording. */
  #choose() {
    const chooser = document.createElement("input");
    chooser.type = "file";
    chooser.addEventListener("change", () => {
      this.file = chooser.files[0];
      this.#part(".listen").hidden = true;
      this.#listen();
    });
    chooser.click();
  }

  async #complete(job) {
    const body = JSON.parse(await this.#render("verbose_json"));
    this.text.finish(body.segments, body.words, body.task === "translate" ? "en" : body.language_code);
    this.#finish(`${clock(body.duration)}, ${sentenceCase(body.language)}, ${job.model}`);
    if (body.segments.length === 0) this.#status(`${clock(body.duration)}: nobody speaks in it`);
    this.#sentence(".warning", job.warning ?? "");
    const until = new Date(job.expires_at * 1000).toLocaleDateString(undefined, { day: "numeric", month: "long" });
    this.#part(".kept").textContent = `Kept until ${until}, unless you remove it.`;
    this.#part(".actions").hidden = false;
    this.onSaid(`${this.name} is transcribed.`);
    this.onChange(this, false);
    this.#render().catch(() => {});
  }

  /** `passing` is whether the same file may be taken another time. */
  #fail(message, passing) {
    this.#finish("Failed");
    this.#error(message);
    this.element.classList.add("failed");
    this.#part(".again").hidden = !(passing && this.file);
    // What failed at the server is sent anew, when it is tried again.
    this.#forget().catch(() => {});
    this.onChange(this, false);
  }

  #finish(status) {
    this.over = true;
    this.#status(status);
    this.#part("progress").hidden = true;
    this.#label(".end", "Remove");
  }

  /** Have the job, where there is one, deleted from the server. */
  async #forget() {
    const id = this.id;
    this.id = "";
    if (!id) return;
    await request(`v1/jobs/${id}`, { method: "DELETE" }).catch((error) => {
      if (error.status === 404) return;
      this.id = id;
      throw error;
    });
  }

  /** The text in a format, as the server writes it. */
  #render(format = this.#part(".format").value) {
    if (!this.#rendered.has(format)) {
      const text = request(`v1/jobs/${this.id}/result?response_format=${format}`).then((response) => response.text());
      text.catch(() => this.#rendered.delete(format));
      this.#rendered.set(format, text);
    }
    return this.#rendered.get(format);
  }

  async #copy() {
    try {
      await writeToClipboard(await this.#render());
      this.#flash(".copy", "Copied");
    } catch (error) {
      this.#error(error instanceof ApiError ? error.message : "The browser does not let this page copy.");
    }
  }

  async #download() {
    const format = this.#part(".format").value;
    try {
      const url = URL.createObjectURL(new Blob([await this.#render()], { type: MIME[format] }));
      const link = document.createElement("a");
      link.href = url;
      link.download = `${this.name.replace(/\.[^.]{1,5}$/, "")}.${SUFFIX[format]}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      this.#error(error.message);
    }
  }

  #part(selector) {
    return this.element.querySelector(selector);
  }

  #label(selector, text) {
    this.#part(selector).textContent = text;
    this.#part(selector).setAttribute("aria-label", `${text}: ${this.name}`);
  }

  #flash(selector, text) {
    const before = this.#part(selector).textContent;
    if (before === text) return;
    this.#label(selector, text);
    this.onSaid(text);
    setTimeout(() => this.#label(selector, before), 2000);
  }

  #status(text) {
    this.#part(".status").textContent = text;
  }

  #error(text) {
    this.#sentence(".error", text);
  }

  #sentence(selector, text) {
    this.#part(selector).textContent = text;
    this.#part(selector).hidden = text === "";
  }
}

/** Only pages of https and localhost have a clipboard; the others copy what is selected. */
async function writeToClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  field.setAttribute("readonly", "");
  field.className = "unseen";
  const before = document.activeElement;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus();
  if (!done) throw new Error("not copied");
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("Cancelled", "AbortError"));
    });
  });
}
