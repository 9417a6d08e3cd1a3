//! The Envoy binary and its configuration: found, installed, checked, rendered.
