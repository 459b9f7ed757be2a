// A recording from the microphone, as a file.

import { clock } from "./sentences.js";

const TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];
const button = document.getElementById("record");
const label = button.querySelector("strong");
const note = document.getElementById("record-note");

let recorder = null;

export function isRecording() {
  return recorder !== null;
}

/** Wire the button; `take` gets each recording as a File. */
export function installMicrophone(take) {
  button.addEventListener("click", async () => {
    if (recorder) {
      recorder.stop();
      return;
    }
    note.textContent = "";
    const missing = whyNot();
    if (missing) {
      note.textContent = missing;
      return;
    }
    button.disabled = true; // while the browser asks
    try {
      record(await navigator.mediaDevices.getUserMedia({ audio: true }), take);
    } catch (error) {
      note.textContent = refusal(error);
    } finally {
      button.disabled = false;
    }
  });
}

function whyNot() {
  if (!window.isSecureContext) {
    return "Browsers let a page record only over https, or at localhost: open it there, or choose a file.";
  }
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return "This browser cannot record: choose a file.";
  return "";
}

function refusal(error) {
  if (error.name === "NotAllowedError") return "The browser does not let this page use the microphone: allow it beside the address.";
  if (error.name === "NotFoundError") return "No microphone was found.";
  return "The microphone cannot be used; another program may hold it.";
}

function record(stream, take) {
  const type = TYPES.find((each) => MediaRecorder.isTypeSupported(each));
  const chunks = [];
  recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
  recorder.addEventListener("dataavailable", (event) => chunks.push(event.data));
  const started = performance.now();
  const show = () => (label.textContent = `Stop (${clock((performance.now() - started) / 1000)})`);
  const ticking = setInterval(show, 500);
  recorder.addEventListener("stop", () => {
    clearInterval(ticking);
    for (const track of stream.getTracks()) track.stop();
    button.classList.remove("on");
    button.removeAttribute("aria-label");
    label.textContent = "Record";
    note.textContent = "";
    const kind = recorder.mimeType.split(";")[0];
    recorder = null;
    take(new File(chunks, `${named(new Date())}.${kind.split("/")[1] || "webm"}`, { type: kind }));
  });
  recorder.start(1000);
  button.classList.add("on");
  button.setAttribute("aria-label", "Stop recording");
  note.textContent = "Recording.";
  show();
}

function named(date) {
  const two = (number) => String(number).padStart(2, "0");
  return `Recording of ${two(date.getHours())}.${two(date.getMinutes())}.${two(date.getSeconds())}`;
}
