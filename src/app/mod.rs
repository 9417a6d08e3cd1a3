//! Wiring, straight-line: Config, build, Bound, run.
