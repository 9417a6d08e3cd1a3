//! Configuration as code: what `gateway.yaml` holds, what wins over it, and what a change of it takes.
//!
//! # Form
//!
//! Settings in groups (`gateway:`, `limits:`, …), and five parts that declare something: `connections:`, `approvals:`,
//! `variables:`, `secrets.providers:`, `secrets.defaults:`. Every setting is declared once in [`crate::config::keys`], every member of a
//! part once in [`crate::config::structure`]; the loader, the README's table, `gateway config schema` and what a change takes are made
//! from those two. A test holds every setting to its form by trying values on both the loader and the schema.
//!
//! The file is read to a tree in which each node knows its line and column, and only then to types. So all mistakes are told at
//! once, each with its place and a path such as `connections[3].base_url`. A connection is judged by the very draft the admin API
//! judges ([`crate::domain::draft::Draft::check`]), with the same addresses; where a member is wrong, something harmless is put in
//! its place and the rest is judged, so that a connection with five mistakes shows five.
//!
//! Bounds: 64 MiB, 16 levels, 8 million values, 65,536 keys in one mapping, 50,000 connections and variables, 64 providers; 10,000
//! mistakes are looked for and 100 shown. Aliases and tags are refused: they are how a short file becomes a huge one.
//!
//! # Precedence
//!
//! Option, environment, `gateway.yaml`, `config.env`, default. `gateway config show` says for each value which it was. The parts
//! stand in the file only. A declared connection or variable wins over a stored one of the same name.
//!
//! # Why references stand in the file alone
//!
//! A reference makes the admin process read a file or run a program. Whoever may write `gateway.yaml` may do that anyway; whoever
//! holds the admin token may not, and must not gain it. So the API takes literals and `{{KEY}}`, and a variable that the file
//! declares may be any reference: that is how connections made through the API reach a vault.
//!
//! Literals are refused unless `secrets.allow_literals` is set, since the file is made for git. A file that holds some must be
//! readable by its owner alone. Every file must be closed to the writing of others (mode `o-w`), else it stops the start
//! (exit 78) and a reload leaves the last good one in force: whoever writes it names programs that we run. No message repeats what stands where a reference should: it may be the secret.
//!
//! # Providers
//!
//! A reference is a source, a provider and an id, in the grammar and with the provider protocol other agent gateways use, so that
//! existing resolvers work. `env` and `store` need no declaration. A reference without a provider means that of
//! `secrets.defaults`, else the one named `default`. `{file: PATH}` needs none at all.
//!
//! # A file with nothing in it
//!
//! At a start a missing file, or an empty one, declares nothing. While the gateway runs it is more often half of a replacement
//! than a will: a program that truncates before it writes, a rename that failed, a volume that is mounted anew. So where a file
//! with content is in force, one that is gone or holds nothing but whitespace is refused like a mistake (`invalid`), in every
//! mode, and everything stays ([`crate::reload::Content`]). Whoever means it writes `{}` or a comment, or starts the gateway anew.
//!
//! # What a change takes
//!
//! | class | what happens |
//! | --- | --- |
//! | `hot` | the next decision or request goes by it: all declarations, limits, approvals, most of `claims` |
//! | `hot-envoy` | Envoy takes a new configuration while it runs |
//! | `restart` | the processes start anew; also what nothing is known of |
//!
//! Two configurations are compared by what they mean ([`crate::config::compare`]): how a value is written, the order of
//! connections, and a key that an option overrules do not count.
