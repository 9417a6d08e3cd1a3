//! Envoy ext_authz v3 over gRPC: decode, ask the gate, encode.
