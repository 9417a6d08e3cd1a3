// What the dashboard does beyond its pages: copying, counting down, closing what was opened, and not sending a form
// twice. Everything else works without it.

document.documentElement.classList.add("js");

// On a narrow screen the sections are a strip: the current one is in sight.
document.querySelector(".side nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// Copy buttons name the element whose text they copy.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const text = source.textContent.trim().replaceAll(/\s+/g, " ");
  let copied = false;
  try {
    await navigator.clipboard.writeText(text);
    copied = true;
  } catch {
    // Without a secure context there is no clipboard: what is to be copied is selected instead.
    getSelection().selectAllChildren(source);
  }
  button.textContent = copied ? "Copied" : "Selected";
  say(copied ? "Copied" : "Selected; copy it with the keyboard");
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

// One place where state changes are spoken.
const speaker = document.createElement("p");
speaker.className = "sr";
speaker.setAttribute("role", "status");
document.body.append(speaker);
function say(text) {
  speaker.textContent = "";
  setTimeout(() => { speaker.textContent = text; }, 50);
}

// A page that shows something once must not be sent for again when it is reloaded.
const once = document.querySelector("[data-once]");
if (once) history.replaceState(null, "", once.dataset.once);

// What was just done is told once, not again when the page is reloaded.
const here = new URL(location.href);
if (here.searchParams.has("done")) {
  here.searchParams.delete("done");
  history.replaceState(null, "", here);
}

// Only one question is open at a time, and Escape closes it.
document.addEventListener("toggle", (event) => {
  if (!event.target.matches?.("details.confirm") || !event.target.open) return;
  for (const other of document.querySelectorAll("details.confirm[open]")) {
    if (other !== event.target) other.open = false;
  }
}, true);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const open of document.querySelectorAll("details.confirm[open]")) {
    open.open = false;
    open.querySelector("summary").focus();
  }
});
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details.confirm[open]")) {
    if (!open.contains(event.target)) open.open = false;
  }
});

// A form is sent once. Coming back to the page makes it whole again.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.hasAttribute("data-seal")) return;
  if (event.target.dataset.sent) { event.preventDefault(); return; }
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// Counts down to the moment an element names.
function count() {
  for (const element of document.querySelectorAll("[data-until]")) {
    const left = Math.floor((Date.parse(element.dataset.until) - Date.now()) / 1000);
    const two = (number) => String(number).padStart(2, "0");
    element.textContent = left > 0 ? `${Math.floor(left / 60)}:${two(left % 60)}` : "0:00";
  }
}
setInterval(count, 1000);
count();
document.addEventListener("htmx:afterSwap", count);

// What the news say of pending claims, the numbers beside them say too.
document.addEventListener("htmx:afterSwap", (event) => {
  const news = event.target.querySelector("[data-news]");
  if (!news) return;
  for (const number of document.querySelectorAll("[data-pending]")) {
    number.textContent = news.dataset.news;
    const badge = number.closest(".count");
    if (badge !== number) badge.hidden = news.dataset.news === "0";
  }
});

// Moments in the reader's own time.
function local(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) time.title = at.toLocaleString();
  }
}
local(document);
document.addEventListener("htmx:afterSwap", (event) => local(event.target));
