//! The admin process: REST, health, metrics.
