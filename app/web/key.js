// The key: kept for this tab, or in this browser where the user says so, and asked for when the server wants one.

const NAME = "whisperd.key";
const dialog = document.getElementById("key-dialog");
const field = document.getElementById("key");
const remember = document.getElementById("key-remember");
const sentence = document.getElementById("key-sentence");

// Browsers that are told to store nothing throw: the key then lives as long as the page.
let key = read(() => sessionStorage.getItem(NAME) ?? localStorage.getItem(NAME)) ?? "";
let asking = null;

export function currentKey() {
  return key;
}

/** Ask for a key, saying why; true once there is a new one, false where the user wants to give none. */
export function askForKey(why) {
  asking ??= new Promise((resolve) => {
    sentence.textContent = why;
    field.value = "";
    remember.checked = Boolean(read(() => localStorage.getItem(NAME)));
    document.getElementById("key-forget").hidden = key === "";
    dialog.returnValue = "";
    dialog.showModal();
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "given"), { once: true });
  }).finally(() => (asking = null));
  return asking;
}

function keep(given) {
  key = given;
  read(() => {
    sessionStorage.removeItem(NAME);
    localStorage.removeItem(NAME);
    if (key !== "") (remember.checked ? localStorage : sessionStorage).setItem(NAME, key);
  });
}

function read(access) {
  try {
    return access();
  } catch {
    return null;
  }
}

document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = field.value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) {
    sentence.textContent = given === "" ? "Enter a key, or cancel." : "A key holds only letters, digits and signs, without spaces.";
    field.focus();
    return;
  }
  keep(given);
  dialog.close("given");
});
document.getElementById("key-cancel").addEventListener("click", () => dialog.close(""));
document.getElementById("key-forget").addEventListener("click", () => {
  keep("");
  dialog.close("given");
});
