//! Which paths are open.

use super::*;

#[test]
fn everything_is_signed_but_what_is_listed() {
    for open in [
        "/health",
        "/1.0/identifiers/did:sigilum:alice",
        "/openapi.json",
        "/v1/test/seed",
        "/v1/auth/me",
        "/v1/services",
        "/v1/services/svc_1/keys/key_1",
        "/v1/gateway/pairing/session",
        "/v1/claims/cl_1",
        "/v1/claims/cl_1/approve",
        "/v1/namespaces/alice/claims",
        "/v1/namespaces/alice/usage",
        "/.well-known/did/did:sigilum:alice",
    ] {
        assert!(!needs_signature(open), "{open}");
    }
    for signed in [
        "/v1/",
        "/v1/nothing",
        "/v1/claims",
        "/v1/claims/cl_1/",
        "/v1/claims/cl_1/delete",
        "/v1/claims//approve/x",
        "/v1/namespaces/claims",
        "/v1/namespaces/claims/changes",
        "/v1/namespaces/alice",
        "/v1/namespaces/alice/claims/",
        "/v1/namespaces//alice/claims",
        "/v1/verify",
        "/v1/usage/events",
        "/v1/usage/events/batch",
        "/v1/authentic",
        "/v1/servicesx",
        "/v1/gateway/pairings",
        "/.well-known/other",
    ] {
        assert!(needs_signature(signed), "{signed}");
    }
}
