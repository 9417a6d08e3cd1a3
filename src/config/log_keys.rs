//! The settings of the logs: how much of them is kept, and how they look; part of [`crate::config::keys::ALL`].

use crate::config::key::Fallback;
use crate::config::key::Key;

/// Length of a log file.
pub const LOG_MAX_BYTES: Key = Key::new(
    Some("logging.max_bytes"),
    &["GATEWAY_LOG_MAX_BYTES"],
    None,
    Fallback::Text("10485760"),
    "bytes after which a log in `<data_dir>/logs` is put aside, 65536 to 1073741824; audit and access log have bounds of their own",
)
.whole(65_536, 1_073_741_824);
/// How many are kept.
pub const LOG_KEEP: Key = Key::new(
    Some("logging.keep"),
    &["GATEWAY_LOG_KEEP"],
    None,
    Fallback::Text("3"),
    "files of each log that were put aside and are kept, 1 to 100",
)
.whole(1, 100);
/// How lines look that a person sees as they are written.
pub const LOG_STYLE: Key = Key::new(
    Some("logging.style"),
    &["GATEWAY_LOG_STYLE"],
    Some("--log-style"),
    Fallback::Computed("warnings as short sentences; with `--verbose` every line as JSON"),
    "how `gateway start` and `up` show lines of the logs on standard error: `pretty` (columns, and colours in a terminal), `compact` or `json`; the files hold JSON always",
)
.choice(&["pretty", "compact", "json"]);
