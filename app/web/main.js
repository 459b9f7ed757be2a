// The page: what the user adds becomes rows, each a job at the server.

import { json } from "./api.js";
import { askForKey, currentKey } from "./key.js";
import { installMicrophone, isRecording } from "./microphone.js";
import { watchQueue } from "./queue.js";
import { Row } from "./row.js";

const STORE = "whisperd.jobs"; // this tab's jobs, which a reload shows again

const byId = (id) => document.getElementById(id);
let rows = [];

function add(files) {
  const added = files.map((file) => new Row(file.name, { file, ...chosen() }));
  // The newest first, but those that come together in their order.
  for (const row of [...added].reverse()) place(row);
  for (const row of added) row.start();
}

/** What the fields say now: where a recording goes, and with what. */
function chosen() {
  const fields = [
    ["model", byId("model").value],
    ["prompt", byId("prompt").value.trim()],
    ["response_format", "verbose_json"],
  ];
  if (byId("translate").checked) return { path: "v1/audio/translations", fields };
  fields.push(["language", byId("language").value]);
  for (const each of ["segment", "word"]) fields.push(["timestamp_granularities[]", each]);
  return { path: "v1/audio/transcriptions", fields };
}

function place(row) {
  rows.unshift(row);
  byId("rows").prepend(row.element);
  byId("none").hidden = true;
  row.onChange = changed;
  row.onSaid = (sentence) => (byId("said").textContent = sentence);
  return row;
}

function changed(row, removed) {
  if (removed) {
    const next = row.element.nextElementSibling ?? row.element.previousElementSibling;
    row.element.remove();
    rows = rows.filter((each) => each !== row);
    (next?.querySelector(".end") ?? byId("drop")).focus();
    byId("none").hidden = rows.length > 0;
  }
  try {
    sessionStorage.setItem(STORE, JSON.stringify(rows.filter((each) => each.id).map(({ id, name }) => ({ id, name }))));
  } catch {
    // Without storage a reload forgets them.
  }
}

/** Go on with what this tab sent before it was loaded again. */
async function restore() {
  let stored = [];
  try {
    stored = JSON.parse(sessionStorage.getItem(STORE)) ?? [];
  } catch {
    // nothing to go on with
  }
  for (const { id, name } of stored.reverse()) {
    try {
      await json(`v1/jobs/${id}`);
    } catch (error) {
      if (error.status === 404) continue;
    }
    place(new Row(name, { id })).start();
  }
}

/** Fill in what the server has; asks for a key where it wants one. */
async function describe() {
  const { data } = await json("v1/models");
  const server = await json("health");
  if (server.model) {
    byId("model").options[0].textContent = `The server’s own (${server.model})`;
    byId("about").textContent = server.state === "ready" ? `${server.model} with ${server.backend}` : `${server.model} is ${STATES[server.state]}`;
  }
  if (server.state === "starting") setTimeout(show, 2000);
  const others = data.filter(({ id }) => id !== server.model).map(({ id }) => new Option(id, id));
  byId("model").replaceChildren(byId("model").options[0], ...others);
}

function show() {
  describe().catch((error) => (byId("about").textContent = error.message));
}

const STATES = {
  starting: "still loading; recordings wait for it",
  unloaded: "loaded with the next recording",
  failed: "not to be loaded; the server’s log says why",
  broken: "not to be kept running; the server’s log says why",
};

function installFiles() {
  const drop = byId("drop");
  const chooser = byId("files");
  drop.addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    add([...chooser.files]);
    chooser.value = ""; // so that the same file can be chosen again
  });
  // Files may be dropped anywhere: what misses the zone would open in the browser, and the page be gone.
  let over = 0;
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => carriesFiles(event) && drop.classList.toggle("over", ++over > 0));
  addEventListener("dragleave", (event) => carriesFiles(event) && drop.classList.toggle("over", --over > 0));
  addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    over = 0;
    drop.classList.remove("over");
    add([...event.dataTransfer.files]);
  });
}

installFiles();
installMicrophone((file) => add([file]));
addEventListener("beforeunload", (event) => {
  if (isRecording() || rows.some((row) => row.sending)) event.preventDefault(); // the browser asks
});
byId("translate").addEventListener("change", ({ target }) => (byId("language").disabled = target.checked));
byId("key-button").addEventListener("click", async () => {
  const sentence = currentKey() ? "A key is in use. Another one takes its place." : "Where the server wants a key, it is sent with all that this page asks for.";
  if (await askForKey(sentence)) show();
});
watchQueue((requestId) => rows.find((row) => row.requestId === requestId)?.name ?? "");
show();
restore();
