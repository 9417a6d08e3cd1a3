//! How signatures are verified, and what was measured before choosing.
//!
//! # What is checked
//!
//! Ed25519 (RFC 8032 section 5.1.7) without cofactor and strict, as `ed25519-dalek`'s `verify_strict`:
//! S must be reduced, neither the key nor R may be of small order, and R is compared as bytes. Honest
//! signers of every SDK pass; verifiers that are more liberal accept a few crafted keys we do not.
//!
//! # What was measured
//!
//! One verification of a signature over 1,150 bytes, an ordinary signature base. Intel Xeon (Sapphire
//! Rapids, two shared virtual cores), rustc 1.95, thin LTO, ed25519-dalek 3.0.0, curve25519-dalek 5.0.0,
//! ring 0.17.14. Microseconds, the best of 60 rounds of 100: the machine was shared with compilers, whose
//! noise only ever adds. Where nothing else is said the build is for generic x86-64.
//!
//! | path | µs | memory per key |
//! | --- | --- | --- |
//! | `verify_strict`, key held decompressed, default back end (AVX2 found at run time) | 39.4 | 192 B |
//! | the same, key decompressed and judged each time | 43.7 | none |
//! | the same, back end `serial` | 43.1 | 192 B |
//! | the same, back end `avx512` with detection at run time | 37.6 | 192 B |
//! | the same, everything compiled with `target-cpu=native` (AVX-512 IFMA) | 25.9 | 192 B |
//! | ring (decompresses the key; accepts keys of small order) | 38.0 | none |
//! | the library's `VartimeEdwardsPrecomputation` of key and base point | 34.0 | 10 kB |
//! | the library's `EdwardsBasepointTable` per key (selects in constant time) | 26.2 | 30 kB |
//! | own table: 4-bit digits of the key's multiples, 8-bit digits of the base point's | 19.9 | 82 kB |
//! | the same with 5-bit digits for the key | 18.8 | 133 kB |
//! | the same with 8-bit digits for the key | 15.9 | 655 kB |
//! | the own table (4 and 8 bits) with `target-cpu=native` | 18.3 | 82 kB |
//!
//! Parts of it: SHA-512 of the message 2.0, compressing a point 3.4, decompressing one 3.7.
//!
//! In place, on the same machine and by the same measure: one verification with a table 18.1, without 39.6; all
//! checks of a GET whose certificate is known 20.2 with a table and 39.4 without; the same with 63 keys that all
//! have tables, in turn, 22.8 (their tables are more than the second-level cache holds); the 4 KiB body of a
//! POST 2.4 more; a certificate that is not known 43.4 more. Headers and parameters take 1.2 of it, the
//! signature base 0.2.
//!
//! # What was chosen
//!
//! - **Keys in much use get a table** ([`crate::domain::signature::HotKeys`]): half the time of the best
//!   portable alternative, and less than the vector units give where a build may assume them. At most 64
//!   keys, 5.2 MB, plus 655 kB for the base point. A table takes about 0.1 ms to make and is made at the
//!   16th verified request. It holds public points only, so variable time is no leak.
//! - **All others** go through `verify_strict` with the key held decompressed in its certificate.
//! - **No special build flags.** `target-cpu=native` would tie the binary to its machine. The `avx512` back end
//!   with run-time detection gains little, because the vector code is not inlined across the detection.
//! - **Not ring**: no faster, and not strict.
//!
//! The table's arithmetic is the library's; ours is only the choice of which multiples to add. Its verdicts
//! are tested against `verify_strict` on random input and on the edge cases in which implementations of
//! Ed25519 are known to differ: S + L, every spelling of every point of small order as key and as R, keys
//! with a torsion part.
//!
//! `cargo bench --bench core` repeats the rows that are in use.
