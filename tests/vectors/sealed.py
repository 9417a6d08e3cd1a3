#!/usr/bin/env python3
"""Writes sealed.json: secrets sealed to a gateway's key, and the private key that opens them.

Independent of the Rust code: HPKE (RFC 9180, base mode, one message) is built here from HMAC, X25519 and AES-GCM of Python's
`cryptography`. The RFC has no vector with X25519 and AES-256-GCM, so the script first arrives at the RFC's vector A.1.1 (the
same with AES-128-GCM), and has the HPKE of `cryptography` 48 open a message of this suite; it stops where either does not
agree. Run it from anywhere: python3 tests/vectors/sealed.py
"""

import base64
import hashlib
import hmac
import json
import pathlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

INFO = b"sigilum sealed secret v1"
KEM = b"KEM" + (0x0020).to_bytes(2, "big")


def extract(suite, salt, label, material):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, hashlib.sha256)


def expand(suite, key, label, info, length):
    info = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    out, block, count = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes([count]), hashlib.sha256)
        out, count = out + block, count + 1
    return out[:length]


def seal(ephemeral, recipient, info, aad, plaintext, aead=2):
    """Both keys are 32 raw bytes: the sender's private one, the recipient's public one."""
    private = X25519PrivateKey.from_private_bytes(ephemeral)
    enc = private.public_key().public_bytes_raw()
    shared = private.exchange(X25519PublicKey.from_public_bytes(recipient))
    eae = extract(KEM, b"", b"eae_prk", shared)
    secret = expand(KEM, eae, b"shared_secret", enc + recipient, 32)
    suite = b"HPKE" + (0x0020).to_bytes(2, "big") + (1).to_bytes(2, "big") + aead.to_bytes(2, "big")
    context = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, secret, b"secret", b"")
    key = expand(suite, secret, b"key", context, {1: 16, 2: 32}[aead])
    nonce = expand(suite, secret, b"base_nonce", context, 12)
    return enc, AESGCM(key).encrypt(nonce, plaintext, aad)


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def check_against_the_rfc():
    enc, sealed = seal(
        bytes.fromhex("52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736"),
        public(bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")),
        b"Ode on a Grecian Urn",
        b"Count-0",
        b"Beauty is truth, truth beauty",
        aead=1,
    )
    assert enc.hex() == "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431", enc.hex()
    expected = "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    assert sealed.hex() == expected, sealed.hex()


def check_against_cryptography(private):
    """Its HPKE knows no associated data, so one message without is compared."""
    from cryptography.hazmat.primitives import hpke

    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    enc, sealed = seal(hashlib.sha256(b"sender").digest(), public(private), INFO, b"", b"a secret")
    assert suite.decrypt(enc + sealed, X25519PrivateKey.from_private_bytes(private), INFO) == b"a secret"


CASES = [
    ("connection", "linear", "api_key", "https://api.linear.app", "lin_api_0123456789"),
    ("connection", "linear", "api_key", "https://api.linear.app/v1/", "another value"),
    ("variable", "SLACK_TOKEN", "value", "", "xoxb-\u00fc\u20ac"),
    ("service-api-key", "linear", "key", "", "sk_" + "0" * 200),
]


def main():
    check_against_the_rfc()
    private = hashlib.sha256(b"sigilum test vector: gateway").digest()
    check_against_cryptography(private)
    recipient = public(private)
    digest = hashlib.sha256(recipient).hexdigest()[:32]
    cases = []
    for number, (purpose, target, field, destination, plaintext) in enumerate(CASES):
        aad = "\n".join([purpose, target, field, destination]).encode()
        ephemeral = hashlib.sha256(f"sigilum test vector: ephemeral {number}".encode()).digest()
        enc, sealed = seal(ephemeral, recipient, INFO, aad, plaintext.encode())
        cases.append(
            {
                "purpose": purpose,
                "id": target,
                "field": field,
                "destination": destination,
                "plaintext": plaintext,
                "sealed": f"sealed:v1:{b64url(enc)}.{b64url(sealed)}",
            }
        )
    vectors = {
        "private_key": b64url(private),
        "public_key": b64url(recipient),
        "fingerprint": "-".join(digest[at : at + 4] for at in range(0, 32, 4)),
        "cases": cases,
    }
    path = pathlib.Path(__file__).with_name("sealed.json")
    path.write_text(json.dumps(vectors, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
