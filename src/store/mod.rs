//! The sealed connection store; exactly one process writes.
