//! Ed25519 identities on disk; signs outgoing requests.
