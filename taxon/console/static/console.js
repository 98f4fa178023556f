// What pages do beyond plain forms and links: they work without this too, one load at a time.
"use strict";

const LOOK_MS = 3000;

function put(into, nodes) {
  into.replaceChildren(...nodes);
  into.removeAttribute("aria-busy");
  for (const button of into.querySelectorAll(".with-script")) button.hidden = false;
}

function note(text) {
  const box = document.createElement("div");
  box.className = "note bad";
  box.setAttribute("role", "alert");
  box.append(text);
  return box;
}

// The part of a fetched page that has this id, or what the page says went wrong.
async function part(response, id) {
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const found = page.getElementById(id) || page.getElementById("result");
  return found ? [...found.childNodes] : [note(response.statusText || "The console has failed.")];
}

async function send(form, pressed) {
  const into = document.getElementById(pressed?.dataset.into || form.dataset.into);
  const files = [...form.elements].flatMap((field) => [...(field.files || [])]);
  const most = Number(form.dataset.maxBytes || Infinity);
  if (files.some((file) => file.size > most)) {
    put(into, [note(`More than ${most.toLocaleString("en")} bytes may not be sent: take a smaller picture.`)]);
    return;
  }
  const fields = new FormData(form, pressed);
  const body = form.enctype === "multipart/form-data" ? fields : new URLSearchParams(fields);
  if (pressed) pressed.disabled = true;
  into.setAttribute("aria-busy", "true");
  try {
    put(into, await part(await fetch(pressed?.getAttribute("formaction") || form.action, { method: "POST", body }), into.id));
    into.scrollIntoView({ block: "nearest" });
  } catch {
    put(into, [note("The console does not answer: is it still running?")]);
  } finally {
    if (pressed) pressed.disabled = false;
  }
}

function choose(input, files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/"));
  if (!pictures.length) return;
  const transfer = new DataTransfer();
  transfer.items.add(pictures[0]);
  input.files = transfer.files;
  input.dispatchEvent(new Event("change"));
}

function ask(form) {
  const input = form.querySelector("input[type=file]");
  const drop = document.getElementById("drop");
  const preview = document.getElementById("preview");
  input.addEventListener("change", () => {
    if (!input.files.length) return;
    URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(input.files[0]);
    preview.hidden = false;
    form.requestSubmit();
  });
  preview.addEventListener("error", () => { preview.hidden = true; });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") choose(input, event.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => choose(input, event.clipboardData.files));
}

// Rates go on; a page that could not be shown is shown as soon as it can be.
async function look() {
  const live = document.querySelector("[data-live]");
  const waits = document.querySelector("[data-retry]");
  if (!(live || waits)) return;
  if (!document.hidden) {
    try {
      const response = await fetch(location.href);
      if (waits ? response.ok : !response.ok) return location.reload();
      if (live && !live.contains(document.activeElement)) put(live, await part(response, live.id));
    } catch {
      // The console itself is away: the next look may find it.
    }
  }
  setTimeout(look, LOOK_MS);
}

document.addEventListener("submit", (event) => {
  if (!event.target.dataset.into) return;
  event.preventDefault();
  send(event.target, event.submitter);
});
document.addEventListener("input", (event) => {
  const chosen = document.getElementById(event.target.dataset.chooses || "");
  if (chosen) chosen.checked = Boolean(event.target.value) || (chosen.type === "radio" && chosen.checked);
});
for (const link of document.querySelectorAll(".without-script")) link.hidden = true;
const form = document.getElementById("ask");
if (form) ask(form);
setTimeout(look, LOOK_MS);
