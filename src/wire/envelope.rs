//! The error envelope every role answers with: one JSON object, members in a fixed order.
//!
//! ```json
//! {"error":"…","code":"NOT_FOUND","request_id":"…","timestamp":"2026-02-20T18:04:26.123Z","docs_url":"…"}
//! ```

use std::fmt::Write as _;

use crate::domain::time::UnixMillis;

/// Content type of an envelope.
pub const CONTENT_TYPE: &str = "application/json";

/// Where the codes are explained; an anchor is added where one fits.
const DOCS: &str = "https://github.com/PaymanAI/sigilum/blob/main/docs/product/GATEWAY_ERROR_CODES.md";

/// One refusal or error, for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Stable code such as `NOT_FOUND`; empty: the member is left out.
    pub code: &'a str,
    /// HTTP status; decides the anchor where the code does not.
    pub status: u16,
    /// A sentence for people. No secret, no value of a header.
    pub message: &'a str,
}

/// The same, as clients read it.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    /// A sentence for people.
    pub error: String,
    /// For programs; absent where the status says it all.
    pub code: Option<String>,
    /// The gateway's id of the request; its log has it too.
    pub request_id: String,
    /// RFC 3339 with milliseconds.
    pub timestamp: String,
    /// Where the code is explained.
    pub docs_url: String,
}

impl Envelope<'_> {
    /// The body: compact JSON and a trailing LF. `<`, `>` and `&` are escaped, so that the text is
    /// harmless inside a page.
    pub fn json(&self, request_id: &str, timestamp: UnixMillis) -> String {
        let mut out = String::with_capacity(384);
        out.push_str("{\"error\":");
        write_text(&mut out, self.message);
        if !self.code.is_empty() {
            out.push_str(",\"code\":");
            write_text(&mut out, self.code);
        }
        out.push_str(",\"request_id\":");
        write_text(&mut out, request_id);
        out.push_str(",\"timestamp\":");
        write_text(&mut out, &timestamp.rfc3339());
        out.push_str(",\"docs_url\":\"");
        out.push_str(DOCS);
        out.push_str(anchor(self.code, self.status));
        out.push_str("\"}\n");
        out
    }
}

/// The part of the documentation a code belongs to; the first rule that fits wins.
fn anchor(code: &str, status: u16) -> &'static str {
    if code.starts_with("AUTH_") {
        "#auth-errors"
    } else if code.starts_with("ADMIN_") {
        "#admin-errors"
    } else if code == "NOT_READY" || status == 503 {
        "#health-and-readiness-errors"
    } else if code.starts_with("MCP_")
        || matches!(code, "UPSTREAM_ERROR" | "ROTATION_REQUIRED" | "INVALID_REFRESH_MODE")
    {
        "#runtime-and-mcp-errors"
    } else if matches!(code, "METHOD_NOT_ALLOWED" | "NOT_FOUND" | "REQUEST_BODY_TOO_LARGE")
        || matches!(status, 404 | 405 | 413 | 431)
    {
        "#generic-and-operator-errors"
    } else {
        ""
    }
}

/// Appends `text` as a JSON string (RFC 8259 section 7), quotes included. Besides what must be
/// escaped, `<`, `>`, `&`, U+2028 and U+2029 are, as Go's encoder does.
pub fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use super::*;

    const AT: UnixMillis = UnixMillis(1_771_610_666_123);

    #[test]
    fn members_stand_in_order_and_a_line_feed_ends_the_body() {
        let body = Envelope { code: "NOT_FOUND", status: 404, message: "not found" }.json("id-1", AT);
        assert_eq!(
            body,
            "{\"error\":\"not found\",\"code\":\"NOT_FOUND\",\"request_id\":\"id-1\",\
             \"timestamp\":\"2026-02-20T18:04:26.123Z\",\
             \"docs_url\":\"https://github.com/PaymanAI/sigilum/blob/main/docs/product/GATEWAY_ERROR_CODES.md\
             #generic-and-operator-errors\"}\n"
        );
    }

    #[test]
    fn an_empty_code_is_left_out() {
        let body = Envelope { code: "", status: 400, message: "invalid path" }.json("x", AT);
        assert!(!body.contains("\"code\""));
        assert!(body.contains("GATEWAY_ERROR_CODES.md\"}"));
    }

    #[test]
    fn what_is_inserted_cannot_leave_its_string() {
        let wild = "\"\\\n\r\t\0\u{1f}</script>&\u{2028}ü";
        let body = Envelope { code: "C", status: 400, message: wild }.json(wild, AT);
        assert!(!body.contains(['<', '>', '&', '\u{2028}']));
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read["error"], wild);
        assert_eq!(read["request_id"], wild);
    }

    #[test]
    fn anchors_follow_the_first_rule_that_fits() {
        for (code, status, wanted) in [
            ("AUTH_CLAIM_REQUIRED", 403, "#auth-errors"),
            ("ADMIN_TOKEN_REQUIRED", 403, "#admin-errors"),
            ("NOT_READY", 503, "#health-and-readiness-errors"),
            ("MCP_CIRCUIT_OPEN", 503, "#health-and-readiness-errors"),
            ("UPSTREAM_ERROR", 502, "#runtime-and-mcp-errors"),
            ("REQUEST_BODY_TOO_LARGE", 413, "#generic-and-operator-errors"),
            ("", 404, "#generic-and-operator-errors"),
            ("", 400, ""),
        ] {
            assert_eq!(anchor(code, status), wanted, "{code} {status}");
        }
    }
}
