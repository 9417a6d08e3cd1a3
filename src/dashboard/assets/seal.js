// Seals secrets to the gateway's key before a form is sent: HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256, AES-256-GCM. The field a person types into has no name, so that nothing of it is ever sent; what is
// sent is the sealed text, bound to the place it is meant for and to how it is sent there. The key is one that the
// person compared with the line `sigilum gateway pair` printed: those are remembered here, each with the name the person
// gave its gateway, and to a key that is none of them nothing is sent before it is compared too.

import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "./hpke.js";

const INFO = "sigilum sealed secret v1";
const PREFIX = "sealed:v1:";
const KEY_BYTES = 32;

const utf8 = (text) => new TextEncoder().encode(text);

function encode(bytes) {
  let text = "";
  for (const byte of new Uint8Array(bytes)) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function decode(text) {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
  if (bytes.length !== KEY_BYTES) throw new Error("the key must have 32 bytes");
  return bytes;
}

// SHA-256 of the key, its first 16 bytes as hex in groups of four. Computed here: what the page says of it is not
// what is compared.
async function fingerprint(key) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", decode(key)));
  const hex = Array.from(hash.slice(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.match(/.{4}/g).join("-");
}

// What decides where and how a secret is sent, in the order in which it is bound.
const DESTINATION = [
  "base_url", "path_prefix", "mcp_endpoint", "auth_mode", "auth_header_name", "auth_prefix", "auth_secret_key",
  "secret_version",
];

async function seal(key, place, secret) {
  const suite = new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
  const recipientPublicKey = await suite.kem.importKey("raw", decode(key).buffer, true);
  const aad = utf8([place.purpose, place.id, place.field, place.destination].join("\n"));
  const { enc, ct } = await suite.seal({ recipientPublicKey, info: utf8(INFO) }, utf8(secret), aad);
  return `${PREFIX}${encode(enc)}.${encode(ct)}`;
}

// Why this browser cannot seal; null where it can.
async function obstacle() {
  if (!globalThis.isSecureContext || !globalThis.crypto?.subtle) {
    return "Browsers encrypt only on pages that came by HTTPS or from this very machine, and this one did neither.";
  }
  try {
    await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
    return null;
  } catch {
    return "It does not know X25519. Current versions of Chrome, Edge, Firefox and Safari do.";
  }
}

// The keys that were compared in this browser: [{ key, name, at }], the last one at the end. A gateway is known by its key
// and by nothing else, because whoever relays could say any other mark of it: a key is one of these or has to be
// compared. Neither are they kept by namespace, which the page says as well.
const PLACE = "sigilum.sealing-keys";
const MOST_KNOWN = 64;

function known() {
  try {
    return JSON.parse(localStorage.getItem(PLACE) ?? "[]").filter((one) => typeof one?.key === "string");
  } catch {
    return [];
  }
}

function keep(all) {
  try {
    localStorage.setItem(PLACE, JSON.stringify(all.slice(-MOST_KNOWN)));
  } catch {
    // Without storage a key is compared each time.
  }
}

const others = (key) => known().filter((one) => one.key !== key);
const remember = (key, name) => keep([...others(key), { key, name, at: new Date().toISOString() }]);
const forget = (key) => keep(others(key));

// How it stands with the gateway's key: `unable`, `keyless` (none is shown and none was ever compared), `compare` (the
// first one), `pinned`, `another` (none of those that were compared) or `hidden`: a key that is withheld or unreadable
// where others were compared. Nobody gets a secret in clear by hiding it.
async function standing(panel) {
  const { key } = panel.dataset;
  const why = await obstacle();
  if (why) return { name: "unable", why };
  const all = known();
  const now = key ? await fingerprint(key).catch(() => null) : null;
  const found = now && all.find((one) => one.key === key);
  if (found) return { name: "pinned", now, called: found.name };
  if (all.length === 0) return { name: now ? "compare" : "keyless", now };
  return { name: now ? "another" : "hidden", now };
}

// A gateway as its owner called it.
const called = (name) => name || "a gateway without a name";

// The gateways whose keys were compared, each with a button that forgets its key.
async function list(element) {
  const rows = known().map(async (one) => {
    const row = document.createElement("li");
    const about = document.createElement("div");
    const name = document.createElement("bdi");
    name.textContent = called(one.name);
    const sub = document.createElement("span");
    sub.className = "sub mono";
    const at = String(one.at).slice(0, 10);
    sub.textContent = `${await fingerprint(one.key).catch(() => "unreadable")}, compared ${at}`;
    about.append(name, sub);
    const button = document.createElement("button");
    button.type = "button";
    button.className = "danger";
    button.textContent = "Forget";
    button.setAttribute("aria-label", `Forget the key of ${called(one.name)}`);
    button.addEventListener("click", () => {
      forget(one.key);
      showAll();
    });
    row.append(about, button);
    return row;
  });
  element.replaceChildren(...(await Promise.all(rows)));
}

async function show(panel) {
  const state = await standing(panel);
  for (const part of panel.querySelectorAll("[data-when]")) {
    part.hidden = !part.dataset.when.split(" ").includes(state.name);
  }
  for (const part of panel.querySelectorAll("[data-fingerprint]")) part.textContent = state.now ?? "none";
  for (const part of panel.querySelectorAll("[data-name]")) part.textContent = called(state.called);
  for (const part of panel.querySelectorAll("[data-why]")) part.textContent = state.why ?? "";
  if (state.name !== "unable") for (const part of panel.querySelectorAll("[data-known]")) await list(part);
  for (const part of panel.querySelectorAll("[data-plain]")) {
    part.hidden = state.name !== "unable" && state.name !== "keyless";
  }
  panel.dataset.standing = state.name;
  return state;
}

function showAll() {
  for (const panel of document.querySelectorAll("[data-seal-panel]")) show(panel);
}

// What the person called the gateway whose key they compare.
const typedName = (panel) => panel.querySelector("[data-call]")?.value.trim() ?? "";

async function sent(form, panel) {
  const state = await show(panel);
  const secrets = [...form.querySelectorAll("[data-secret]")].filter((input) => input.value.trim() !== "");
  const plain = form.querySelector("[data-plain] input");
  let convert;
  if (state.name === "unable" || state.name === "keyless") {
    if (!plain?.checked) return "Nothing was sent. It cannot be encrypted here; tick the box if it may go unencrypted.";
    convert = async (_, secret) => secret;
  } else if (state.name === "hidden") {
    return "Nothing was sent: the gateway shows no key, and the gateways whose keys you compared do.";
  } else {
    if (state.name !== "pinned" && !panel.querySelector("[data-compared]").checked) {
      return "Nothing was sent. Compare the fingerprint first, and tick the box.";
    }
    const { key } = panel.dataset;
    convert = (where, secret) => seal(key, where, secret);
  }
  for (const input of form.querySelectorAll("[data-trim]")) input.value = input.value.trim();
  const value = (name) => form.querySelector(`[data-seal="${name}"]`).value;
  const fields = [];
  for (const input of secrets) {
    const field = input.dataset.secret;
    const destination = DESTINATION.map(value).join("\n");
    const where = { purpose: form.dataset.purpose, id: value("id"), field, destination };
    const hidden = document.createElement("input");
    hidden.type = "hidden";
    hidden.name = `secret.${field}`;
    hidden.value = await convert(where, input.value.trim());
    fields.push(hidden);
  }
  if (state.name === "compare" || state.name === "another") remember(panel.dataset.key, typedName(panel));
  for (const input of secrets) {
    input.value = "";
    input.disabled = true;
  }
  form.append(...fields);
  form.dataset.sent = "yes";
  form.submit();
  return "";
}

showAll();
for (const panel of document.querySelectorAll("[data-seal-panel]")) {
  panel.querySelector("[data-pin]")?.addEventListener("click", () => {
    remember(panel.dataset.key, typedName(panel));
    showAll();
  });
}

for (const form of document.querySelectorAll("form[data-seal]")) {
  const panel = form.querySelector("[data-seal-panel]");
  const said = form.querySelector("[data-said]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.dataset.sent) return;
    said.hidden = true;
    const text = await sent(form, panel).catch(() => "Nothing was sent: the secret could not be encrypted.");
    said.textContent = text;
    said.hidden = text === "";
  });
}
