//! Strings to a valid Config; every mistake reported at once. Pure.
