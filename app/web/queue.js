// The server's queue, looked at while the page is.

import { json, request } from "./api.js";
import { clock, standing } from "./sentences.js";

const LOOK_MS = 2000;
const list = document.getElementById("queue");
const note = document.getElementById("queue-note");
const shown = new Map(); // id -> element

/** Show the queue again and again; `nameOf` tells the user's name of a request, "" for others'. */
export async function watchQueue(nameOf) {
  for (;;) {
    if (!document.hidden) await look(nameOf);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

async function look(nameOf) {
  try {
    const { data } = await json("v1/queue", { ask: false });
    show(data, nameOf);
    note.textContent = "Nothing runs or waits.";
    note.hidden = data.length > 0;
  } catch (error) {
    show([], nameOf);
    note.textContent = error.message;
    note.hidden = false;
  }
}

function show(entries, nameOf) {
  const ids = new Set(entries.map((entry) => entry.id));
  for (const [id, element] of shown) {
    if (!ids.has(id)) {
      element.remove();
      shown.delete(id);
    }
  }
  entries.forEach((entry, place) => {
    const element = shown.get(entry.id) ?? made(entry);
    const name = nameOf(entry.request_id) || `A recording of ${clock(entry.audio_s)}`;
    element.querySelector(".name").textContent = name;
    element.querySelector(".status").textContent = `${standing(entry)} · ${clock(entry.audio_s)} of sound · ${entry.model}`;
    element.querySelector("progress").value = entry.progress;
    element.querySelector("progress").setAttribute("aria-label", `Progress of ${name} in the queue`);
    element.querySelector(".end").setAttribute("aria-label", `Cancel in the queue: ${name}`);
    // Moving an element takes the focus off it.
    if (list.children[place] !== element) list.insertBefore(element, list.children[place] ?? null);
  });
}

function made(entry) {
  const element = document.getElementById("queue-template").content.firstElementChild.cloneNode(true);
  element.querySelector(".end").addEventListener("click", async ({ target }) => {
    target.disabled = true;
    try {
      await request(`v1/queue/${entry.id}`, { method: "DELETE" });
      element.querySelector(".status").textContent = "Cancelled";
    } catch (error) {
      if (error.status !== 404) element.querySelector(".status").textContent = error.message;
      target.disabled = false;
    }
  });
  shown.set(entry.id, element);
  return element;
}
