//! The two ends of the state stream: admin publishes, authz keeps.
