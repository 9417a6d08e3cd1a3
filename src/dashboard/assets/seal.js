// Seals secrets to the gateway's key before a form is sent: HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256, AES-256-GCM. The field a person types into has no name, so that nothing of it is ever sent; what is
// sent is the sealed text, bound to the place it is meant for and to how it is sent there. The key is the one the person compared with the line
// `sigilum gateway pair` printed: it is remembered here by namespace, and another one is refused.

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

const place = (namespace) => `sigilum.sealing-key.${namespace}`;

function remembered(namespace) {
  try {
    return localStorage.getItem(place(namespace));
  } catch {
    return null;
  }
}

function remember(namespace, key) {
  try {
    localStorage.setItem(place(namespace), key);
  } catch {
    // Without storage the key is compared each time.
  }
}

function forget(namespace) {
  try {
    localStorage.removeItem(place(namespace));
  } catch {
    // Nothing was remembered.
  }
}

// How it stands with the gateway's key: `unable`, `keyless`, `compare`, `pinned` or `changed`.
async function standing(panel) {
  const { namespace, key } = panel.dataset;
  const why = await obstacle();
  if (why) return { name: "unable", why };
  const known = remembered(namespace);
  // A key that is withheld or unreadable where there was one is a change too: nobody gets a secret in clear by hiding it.
  const now = key ? await fingerprint(key).catch(() => null) : null;
  if (!known) return now ? { name: "compare", now } : { name: "keyless" };
  if (now && known === key) return { name: "pinned", now };
  return { name: "changed", now: now ?? "none", before: await fingerprint(known).catch(() => "unreadable") };
}

async function show(panel) {
  const state = await standing(panel);
  for (const part of panel.querySelectorAll("[data-when]")) part.hidden = part.dataset.when !== state.name;
  for (const part of panel.querySelectorAll("[data-fingerprint]")) part.textContent = state.now ?? "";
  for (const part of panel.querySelectorAll("[data-before]")) part.textContent = state.before ?? "";
  for (const part of panel.querySelectorAll("[data-why]")) part.textContent = state.why ?? "";
  for (const part of panel.querySelectorAll("[data-plain]")) {
    part.hidden = state.name !== "unable" && state.name !== "keyless";
  }
  panel.dataset.standing = state.name;
  return state;
}

async function sent(form, panel) {
  const state = await show(panel);
  const secrets = [...form.querySelectorAll("[data-secret]")].filter((input) => input.value.trim() !== "");
  const plain = form.querySelector("[data-plain] input");
  let convert;
  if (state.name === "unable" || state.name === "keyless") {
    if (!plain?.checked) return "Nothing was sent. It cannot be encrypted here; tick the box if it may go unencrypted.";
    convert = async (_, secret) => secret;
  } else if (state.name === "changed") {
    return "Nothing was sent: the gateway shows another key than the one you compared.";
  } else {
    if (state.name === "compare" && !panel.querySelector("[data-compared]").checked) {
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
  if (state.name === "compare") remember(panel.dataset.namespace, panel.dataset.key);
  for (const input of secrets) {
    input.value = "";
    input.disabled = true;
  }
  form.append(...fields);
  form.dataset.sent = "yes";
  form.submit();
  return "";
}

for (const panel of document.querySelectorAll("[data-seal-panel]")) {
  show(panel);
  panel.querySelector("[data-forget]")?.addEventListener("click", () => {
    forget(panel.dataset.namespace);
    show(panel);
  });
  panel.querySelector("[data-pin]")?.addEventListener("click", () => {
    remember(panel.dataset.namespace, panel.dataset.key);
    show(panel);
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
