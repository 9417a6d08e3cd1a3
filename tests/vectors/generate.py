#!/usr/bin/env python3
"""Writes requests.json: signed requests with the verdict an exact verifier gives.

Independent of the Rust code: Python's `cryptography` signs, this file alone builds bases, certificates and
digests from the profile's text. The golden values below were made by the Go SDK; the script stops where it
does not arrive at them by itself. Run it from anywhere: python3 tests/vectors/generate.py
"""

import base64
import hashlib
import json
import pathlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NOW = 1700000000
MAX_AGE = 300
NONCE = "123e4567-e89b-12d3-a456-426614174000"
SETS = {
    "A": ["@method", "@target-uri", "sigilum-namespace", "sigilum-subject", "sigilum-agent-key", "sigilum-agent-cert"],
}
SETS["B"] = SETS["A"][:2] + ["content-digest"] + SETS["A"][2:]
SETS["C"] = SETS["A"][:4] + ["sigilum-agent-id"] + SETS["A"][4:]
SETS["D"] = SETS["B"][:5] + ["sigilum-agent-id"] + SETS["B"][5:]

GOLDEN_SEED = "ZMLKzZSCxP8QXOO1vlmejAvdFaesd3QC6JC9iCt8FfA="
GOLDEN_CERTIFICATE = (
    "eyJ2ZXJzaW9uIjoxLCJuYW1lc3BhY2UiOiJmaXh0dXJlLWFsaWNlIiwiZGlkIjoiZGlkOnNpZ2lsdW06Zml4dHVyZS1hbGljZSIsImtleUlkIj"
    "oiZGlkOnNpZ2lsdW06Zml4dHVyZS1hbGljZSNlZDI1NTE5LTk5ZmIwMGRjMTZlZTU1NWEiLCJwdWJsaWNLZXkiOiJlZDI1NTE5OkowN2RqL2Nv"
    "NGRpQ21RWVRUUUdxNGFkaG5NS1llakhhekNZVVE3ZUJoMGs9IiwiaXNzdWVkQXQiOiIyMDI2LTAyLTIwVDE4OjA0OjI2WiIsImV4cGlyZXNBdC"
    "I6bnVsbCwicHJvb2YiOnsiYWxnIjoiZWQyNTUxOSIsInNpZyI6InZHcC1XTG1TcjBCV05jaTJsQmhjSk9SZzM5b3QtM1V1MWFhVkcyd0dFS0xJ"
    "dEtfOTY0aEZhUnJWZDdESGZfMmUzeWtHcElhY29NOVE1Z3NfdFB5NkR3In19"
)
GOLDEN_GET = "sig1=:jaRXaGq5rhmHNHZ1fNtBzIjIR3Sj7djYr+boo0F9W6FXHsZ8+xCr0+zNj+Snh9eUS47bu0Iq7AmCa2Zy0CGwBA==:"
GOLDEN_POST = "sig1=:K/V1jiAKCLeivPNz690xNDtf8pfzK1QeeQr7W3a6QwwzgdmHFeQBpJNhT2IvjEKGkYIkUl4YOZUcDYm8u0/TBQ==:"
GOLDEN_DIGEST = "sha-256=:5toCTO6LRikiTvJ0Ha+F6ucUxaTs3wMsnaImDBR0NZg=:"


def b64(data):
    return base64.b64encode(data).decode()


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Identity:
    def __init__(self, namespace, seed):
        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        raw = self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = "ed25519:" + b64(raw)
        self.namespace = namespace
        self.did = "did:sigilum:" + namespace
        self.key_id = f"{self.did}#ed25519-{hashlib.sha256(raw).hexdigest()[:16]}"

    def certificate(self, **changes):
        body = {
            "version": 1,
            "namespace": self.namespace,
            "did": self.did,
            "keyId": self.key_id,
            "publicKey": self.public,
            "issuedAt": "2026-02-20T18:04:26Z",
            "expiresAt": None,
        }
        body.update(changes)
        lines = [
            "sigilum-certificate-v1",
            "namespace:" + body["namespace"],
            "did:" + body["did"],
            "key-id:" + body["keyId"],
            "public-key:" + body["publicKey"],
            "issued-at:" + body["issuedAt"],
            "expires-at:" + (body["expiresAt"] or ""),
        ]
        body["proof"] = {"alg": "ed25519", "sig": b64url(self.key.sign("\n".join(lines).encode()))}
        return body


def compact(body):
    return b64url(json.dumps(body, separators=(",", ":")).encode())


ALICE = Identity("fixture-alice", base64.b64decode(GOLDEN_SEED))
MALLORY = Identity("fixture-alice", hashlib.sha256(b"mallory").digest())


def digest(body):
    return "sha-256=:" + b64(hashlib.sha256(body).digest()) + ":"


def signed(
    method="GET",
    uri="http://127.0.0.1:38000/proxy/demo/v1/items?a=%2F&b=c%20d",
    body=b"",
    who=ALICE,
    subject="fixture-alice",
    agent_id=None,
    certificate=None,
    created=NOW,
    nonce=NONCE,
    key_id=None,
    components=None,
    namespace=None,
    agent_key=None,
    send_uri=None,
    stray_digest=None,
):
    """A signed request as it arrives: the headers in order, and where it was sent."""
    certificate = certificate or compact(who.certificate())
    values = {
        "@method": method.lower(),
        "@target-uri": uri,
        "content-digest": digest(body),
        "sigilum-namespace": namespace or who.namespace,
        "sigilum-subject": subject,
        "sigilum-agent-id": agent_id,
        "sigilum-agent-key": agent_key or who.public,
        "sigilum-agent-cert": certificate,
    }
    if components is None:
        components = SETS[{(0, 0): "A", (1, 0): "B", (0, 1): "C", (1, 1): "D"}[(bool(body), agent_id is not None)]]
    names = " ".join(f'"{name}"' for name in components)
    params = f'({names});created={created};keyid="{key_id or who.key_id}";alg="ed25519";nonce="{nonce}"'
    lines = [f'"{name}": {values.get(name)}' for name in components] + ['"@signature-params": ' + params]
    signature = who.key.sign("\n".join(lines).encode())
    headers = [
        ["host", "x"],
        ["signature-input", "sig1=" + params],
        ["signature", "sig1=:" + b64(signature) + ":"],
        ["sigilum-namespace", values["sigilum-namespace"]],
        ["sigilum-subject", subject],
        ["sigilum-agent-key", values["sigilum-agent-key"]],
        ["sigilum-agent-cert", certificate],
    ]
    if agent_id is not None:
        headers.append(["sigilum-agent-id", agent_id])
    if body:
        headers.append(["content-digest", digest(body)])
    if stray_digest:
        headers.append(["content-digest", stray_digest])
    scheme, rest = (send_uri or uri).split("://", 1)
    authority, slash, path = rest.partition("/")
    return {
        "method": method,
        "scheme": scheme,
        "authority": authority,
        "target": slash + path,
        "headers": [header for header in headers if header[0] != "host"],
        "body": b64(body),
    }


def header(request, name):
    return next(value for found, value in request["headers"] if found == name)


def changed(request, name, change):
    """The request with one header's value changed; `change` returning None drops it."""
    headers = [[found, change(value) if found == name else value] for found, value in request["headers"]]
    return {**request, "headers": [entry for entry in headers if entry[1] is not None]}


def main():
    get = signed(uri="https://api.sigilum.local/v1/namespaces/alice/claims?status=approved")
    post = signed(
        method="POST",
        uri="https://api.sigilum.local/v1/namespaces/alice/claims",
        body=b'{"action":"approve"}',
        subject="customer-12345",
    )
    assert header(get, "sigilum-agent-cert") == GOLDEN_CERTIFICATE
    assert header(get, "signature") == GOLDEN_GET
    assert header(post, "signature") == GOLDEN_POST
    assert header(post, "content-digest") == GOLDEN_DIGEST

    whole = ALICE.certificate()
    spaced = b64url(json.dumps(whole).encode())
    java = json.dumps({**whole, "tool": "java", "proof": dict(sorted(whole["proof"].items()))}, sort_keys=True, separators=(",", ":"))
    padded = base64.urlsafe_b64encode(java.encode()).decode()
    assert padded.endswith("="), "this vector is about padding"
    unknown = compact({**whole, "issuedBy": {"name": "x", "list": [1, 2]}, "migrationHint": "y"})
    plain = signed()
    data = b'{"text":"hello world","count":42}'
    upload = signed(method="POST", body=data)
    origin = "http://127.0.0.1:38000"

    accept = {
        "golden GET of the Go SDK": get,
        "golden POST of the Go SDK": post,
        "set A": plain,
        "set B": upload,
        "set C": signed(agent_id="agent 7, blue"),
        "set D": signed(method="PUT", body=data, agent_id="agent-7"),
        "a subject with a comma and beyond ASCII": signed(subject="Doe, Jané"),
        "a certificate with blanks, as Python writes it": signed(certificate=spaced),
        "a certificate sorted and padded, as Java writes it": signed(certificate=padded),
        "a certificate with unknown members": signed(certificate=unknown),
        "a certificate that has not expired": signed(certificate=compact(ALICE.certificate(expiresAt="2099-01-01T00:00:00Z"))),
        "alg in capitals": changed(plain, "signature-input", lambda value: value.replace('"ed25519"', '"ED25519"')),
        "more blanks between components": changed(plain, "signature-input", lambda value: value.replace('" "', '"   "')),
        "leading zeros of created": changed(plain, "signature-input", lambda value: value.replace("created=", "created=00")),
        "outer blanks of a header": changed(plain, "sigilum-subject", lambda value: f" {value}\t"),
        "an unsigned digest without a body": signed(stray_digest="sha-256=:x:"),
        "an empty agent id": {**plain, "headers": plain["headers"] + [["sigilum-agent-id", " "]]},
        "the oldest that counts": signed(created=NOW - MAX_AGE),
        "five seconds ahead": signed(created=NOW + 5),
        "a bare origin": signed(uri=origin, send_uri=origin + "/"),
        "the default port of http signed, not sent": signed(uri="http://gw.example:80/x", send_uri="http://gw.example/x"),
        "the default port of https signed, not sent": signed(uri="https://gw.example:443/x", send_uri="https://gw.example/x"),
        "a raw target nobody normalises": signed(uri=origin + "/proxy/a/../b//c;d=%7e%2F|^?x=1&x=2&&y"),
        "a lower-case method": {**plain, "method": "get"},
        "a nonce of any text": signed(nonce="a b,c;d=(e)"),
    }

    def tampered(name):
        return changed(upload, name, lambda value: value[:-1] + ("A" if value[-1] != "A" else "B"))

    late = compact(ALICE.certificate(expiresAt="2023-11-14T22:13:19Z"))
    short = [name for name in SETS["A"] if name != "sigilum-subject"]
    foreign = signed(agent_key=MALLORY.public)
    reject = {
        "no headers at all": ("SIG_MISSING_SIGNATURE_HEADERS", {**plain, "headers": []}),
        "no signature": ("SIG_MISSING_SIGNATURE_HEADERS", changed(plain, "signature", lambda _: None)),
        "an empty signature-input": ("SIG_MISSING_SIGNATURE_HEADERS", changed(plain, "signature-input", lambda _: " ")),
        "another label": ("SIG_SIGNATURE_INPUT_INVALID", changed(plain, "signature-input", lambda v: "sig2" + v[4:])),
        "a parameter more": ("SIG_SIGNATURE_INPUT_INVALID", changed(plain, "signature-input", lambda v: v + ";expires=9999999999")),
        "another algorithm": ("SIG_ALGORITHM_UNSUPPORTED", changed(plain, "signature-input", lambda v: v.replace("ed25519\"", "hmac-sha256\""))),
        "created 0": ("SIG_CREATED_INVALID", signed(created=0)),
        "created beyond 63 bits": ("SIG_CREATED_INVALID", signed(created=2**63)),
        "a second too old": ("SIG_TIMESTAMP_OUT_OF_RANGE", signed(created=NOW - MAX_AGE - 1)),
        "six seconds ahead": ("SIG_TIMESTAMP_OUT_OF_RANGE", signed(created=NOW + 6)),
        "a signature of 63 bytes": ("SIG_SIGNATURE_HEADER_INVALID", changed(plain, "signature", lambda _: "sig1=:" + b64(bytes(63)) + ":")),
        "loose bits in the signature": ("SIG_SIGNATURE_HEADER_INVALID", changed(get, "signature", lambda v: v.replace("GwBA==", "GwBB=="))),
        "no certificate": ("SIG_CERT_HEADER_MISSING", changed(plain, "sigilum-agent-cert", lambda _: None)),
        "a certificate cut short": ("SIG_CERT_HEADER_INVALID", changed(plain, "sigilum-agent-cert", lambda v: v[:-40])),
        "a certificate with a member twice": ("SIG_CERT_HEADER_INVALID", signed(certificate=b64url(b'{"version":1,' + json.dumps(whole).encode()[1:]))),
        "a certificate of 17 KiB": ("SIG_CERT_HEADER_INVALID", signed(certificate=compact({**whole, "pad": "x" * 13000}))),
        "a certificate signed by nobody": ("SIG_CERT_INVALID", signed(certificate=compact({**whole, "issuedAt": "2026-02-20T18:04:27Z"}))),
        "a certificate with another did": ("SIG_CERT_INVALID", signed(certificate=compact(ALICE.certificate(did="did:sigilum:mallory")))),
        "a certificate with a forged keyId": ("SIG_CERT_INVALID", signed(certificate=compact(ALICE.certificate(keyId=MALLORY.key_id)))),
        "a certificate of version 2": ("SIG_CERT_INVALID", signed(certificate=compact(ALICE.certificate(version=2)))),
        "an expired certificate": ("SIG_CERT_EXPIRED", signed(certificate=late)),
        "another namespace": ("SIG_NAMESPACE_MISMATCH", changed(plain, "sigilum-namespace", lambda _: "fixture-bob")),
        "no namespace": ("SIG_NAMESPACE_MISMATCH", changed(plain, "sigilum-namespace", lambda _: None)),
        "no subject": ("SIG_SUBJECT_MISSING", changed(plain, "sigilum-subject", lambda _: None)),
        "subject not covered": ("SIG_SUBJECT_COMPONENT_MISSING", signed(components=short)),
        "method not covered": ("SIG_SIGNED_COMPONENTS_INVALID", signed(components=SETS["A"][1:])),
        "another order": ("SIG_SIGNED_COMPONENTS_INVALID", signed(components=[SETS["A"][1], SETS["A"][0]] + SETS["A"][2:])),
        "a component more": ("SIG_SIGNED_COMPONENTS_INVALID", signed(components=SETS["A"] + ["date"])),
        "a body under set A": ("SIG_SIGNED_COMPONENTS_INVALID", {**plain, "body": b64(b"x")}),
        "no body under set B": ("SIG_SIGNED_COMPONENTS_INVALID", {**upload, "body": ""}),
        "no key": ("SIG_KEY_HEADER_MISSING", changed(plain, "sigilum-agent-key", lambda _: None)),
        "another key than the certificate's": ("SIG_KEY_MISMATCH", foreign),
        "a key that is none": ("SIG_KEY_HEADER_INVALID", changed(plain, "sigilum-agent-key", lambda v: v[8:])),
        "another keyid": ("SIG_KEY_ID_MISMATCH", signed(key_id=MALLORY.key_id)),
        "another body": ("SIG_CONTENT_DIGEST_MISMATCH", {**upload, "body": b64(data + b" ")}),
        "no digest": ("SIG_CONTENT_DIGEST_MISMATCH", changed(upload, "content-digest", lambda _: None)),
        "another digest": ("SIG_CONTENT_DIGEST_MISMATCH", changed(upload, "content-digest", lambda _: digest(b"other"))),
        "an agent id covered and absent": ("SIG_SIGNING_BASE_INVALID", changed(signed(agent_id="x"), "sigilum-agent-id", lambda _: None)),
        "another method": ("SIG_VERIFICATION_FAILED", {**plain, "method": "DELETE"}),
        "another path": ("SIG_VERIFICATION_FAILED", {**plain, "target": plain["target"].replace("items", "itemz")}),
        "a decoded path": ("SIG_VERIFICATION_FAILED", {**plain, "target": plain["target"].replace("%2F", "/")}),
        "another query": ("SIG_VERIFICATION_FAILED", {**plain, "target": plain["target"] + "&admin=1"}),
        "another authority": ("SIG_VERIFICATION_FAILED", {**plain, "authority": "127.0.0.1:38001"}),
        "another scheme": ("SIG_VERIFICATION_FAILED", {**plain, "scheme": "https"}),
        "a port that is not the default": ("SIG_VERIFICATION_FAILED", signed(uri="http://gw.example:8080/x", send_uri="http://gw.example/x")),
        "another subject": ("SIG_VERIFICATION_FAILED", tampered("sigilum-subject")),
        "another agent id": ("SIG_VERIFICATION_FAILED", changed(signed(agent_id="x"), "sigilum-agent-id", lambda _: "y")),
        "another nonce": ("SIG_VERIFICATION_FAILED", changed(plain, "signature-input", lambda v: v.replace(NONCE, NONCE[::-1]))),
        "another created": ("SIG_VERIFICATION_FAILED", changed(plain, "signature-input", lambda v: v.replace(str(NOW), str(NOW - 1)))),
        "another certificate of the same key": (
            "SIG_VERIFICATION_FAILED",
            changed(plain, "sigilum-agent-cert", lambda _: compact(ALICE.certificate(issuedAt="2026-02-21T00:00:00Z"))),
        ),
        "somebody else's signature": ("SIG_VERIFICATION_FAILED", changed(plain, "signature", lambda _: header(signed(who=MALLORY), "signature"))),
        "a repeated subject": ("AUTH_HEADERS_INVALID", {**plain, "headers": plain["headers"] + [["sigilum-subject", "other"]]}),
        "a repeated digest": ("AUTH_HEADERS_INVALID", {**upload, "headers": upload["headers"] + [["content-digest", digest(data)]]}),
        "a joined namespace": ("AUTH_HEADERS_INVALID", changed(plain, "sigilum-namespace", lambda v: f"{v}, {v}")),
        "an agent id nobody signed": ("AUTH_IDENTITY_INVALID", {**plain, "headers": plain["headers"] + [["sigilum-agent-id", "x"]]}),
        "a nonce of blanks": ("AUTH_NONCE_INVALID", signed(nonce="  ")),
    }
    cases = [{"name": name, "verdict": "accept", "request": request} for name, request in accept.items()]
    cases += [{"name": name, "verdict": verdict, "request": request} for name, (verdict, request) in reject.items()]
    head = {"profile": "sigilum-rfc9421-v1", "now": NOW, "max_age_seconds": MAX_AGE}
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    text = json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    pathlib.Path(__file__).with_name("requests.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
