//! Logs, metrics, and one event per decision.
