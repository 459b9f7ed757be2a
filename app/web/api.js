// Requests to the server: with the key, and with errors whose message is a sentence for the user.

import { askForKey, currentKey } from "./key.js";

const UPLOADS_AT_ONCE = 2; // a browser opens six connections to a server, and others ask how far jobs are

export class ApiError extends Error {
  /** `status` is HTTP's, 0 where the server was not reached. */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const UNREACHABLE = "The server cannot be reached. Check that it runs, and your network.";

// The API's sentence is for who can leave the header out that asks for a job.
const NO_JOBS =
  "This server keeps no jobs on its disk, and this page is nothing without them. The server's log says why; " +
  "mostly another server has its folder.";

/**
 * Fetch `path` (relative to the page). `ask` is whether the user may be asked for a key.
 * Throws ApiError.
 */
export function request(path, { method = "GET", ask = true } = {}) {
  return withKey(ask, async (headers) => {
    const response = await fetch(path, { method, headers, cache: "no-store" }).catch(() => {
      throw new ApiError(0, UNREACHABLE);
    });
    if (!response.ok) throw errorOf(response.status, await response.text().catch(() => ""));
    return response;
  });
}

/** The same, for an answer in JSON. */
export async function json(path, options) {
  const response = await request(path, options);
  return response.json().catch(() => {
    throw new ApiError(0, UNREACHABLE);
  });
}

/**
 * Post a form; `onProgress` gets the share that is sent, 1 once all is. An aborted `signal` stops it while it is sent;
 * after that the server has the recording, and its answer says what to cancel.
 */
export function upload(path, form, headers, onProgress, signal) {
  return withKey(true, async (keyHeaders) => {
    await turn();
    try {
      return await send(path, form, { ...headers, ...keyHeaders }, onProgress, signal);
    } finally {
      uploads -= 1;
      waiting.shift()?.();
    }
  });
}

let uploads = 0;
const waiting = [];

async function turn() {
  while (uploads >= UPLOADS_AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  uploads += 1;
}

function send(path, form, headers, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const sender = new XMLHttpRequest();
    let sent = false;
    const stop = () => sent || sender.abort();
    sender.open("POST", path);
    for (const [name, value] of Object.entries(headers)) sender.setRequestHeader(name, value);
    sender.upload.addEventListener("progress", (event) => onProgress(event.total ? event.loaded / event.total : 0));
    sender.upload.addEventListener("load", () => {
      sent = true;
      onProgress(1);
    });
    sender.addEventListener("load", () => {
      if (sender.status >= 200 && sender.status < 300) resolve(JSON.parse(sender.responseText));
      else reject(errorOf(sender.status, sender.responseText));
    });
    sender.addEventListener("error", () => reject(new ApiError(0, UNREACHABLE)));
    sender.addEventListener("abort", () => reject(new DOMException("Cancelled", "AbortError")));
    signal.addEventListener("abort", stop);
    sender.addEventListener("loadend", () => signal.removeEventListener("abort", stop));
    if (signal.aborted) reject(new DOMException("Cancelled", "AbortError"));
    else sender.send(form);
  });
}

async function withKey(ask, attempt) {
  for (;;) {
    const key = currentKey();
    try {
      return await attempt(key === "" ? {} : { Authorization: `Bearer ${key}` });
    } catch (error) {
      if (error.status !== 401 || !ask) throw error;
      const why = key === "" ? "This server wants a key." : "The server does not know this key. Enter another one.";
      // Another request may have asked meanwhile.
      if (key === currentKey() && !(await askForKey(why))) throw error;
    }
  }
}

function errorOf(status, body) {
  try {
    const { code, message } = JSON.parse(body).error;
    return new ApiError(status, code === "jobs_unavailable" ? NO_JOBS : message);
  } catch {
    return new ApiError(status, `The server answered ${status} without saying why.`);
  }
}
