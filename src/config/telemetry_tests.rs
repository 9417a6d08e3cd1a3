#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::config::Machine;
use crate::config::keys;
use crate::config::load::Flags;
use crate::config::load::Sources;
use crate::config::load::load;

fn loaded(environment: &[(&str, &str)]) -> Result<Config, String> {
    let env = |name: &str| {
        let home = (name == "HOME").then(|| "/home/someone".to_owned());
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()).or(home)
    };
    let flags = Flags::default();
    load(Sources { flags: &flags, env: &env, saved: &|_| None, machine: &Machine::default }, None)
        .map_err(|mistakes| mistakes.to_string())
}

#[test]
fn nothing_is_traced_without_a_collector() {
    let config = loaded(&[("GATEWAY_TRACE_SAMPLE_RATIO", "0.5")]).unwrap();
    assert_eq!((config.traces, config.settings.traces), (None, None));
}

#[test]
fn the_names_of_the_standard_count_too() {
    let config = loaded(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example:4317/"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20canary, x-tenant=a"),
        ("OTEL_SERVICE_NAME", "edge"),
    ])
    .unwrap();
    let traces = config.settings.traces.unwrap();
    assert_eq!((traces.endpoint.as_str(), traces.service_name.as_str()), ("https://collector.example:4317", "edge"));
    let headers: Vec<_> = traces.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("authorization", "Bearer canary"), ("x-tenant", "a")]);
    assert_eq!(config.traces, Some(TraceOptions { service_name: "edge".to_owned(), sampled: 10_000 }));
    assert!(!format!("{traces:?}").contains("canary"));
}

#[test]
fn secret_headers_do_not_travel_in_clear() {
    let with =
        |endpoint| loaded(&[("GATEWAY_OTLP_ENDPOINT", endpoint), ("GATEWAY_OTLP_HEADERS", "authorization=canary")]);
    let refused = with("http://collector.example:4317").unwrap_err();
    assert!(refused.contains("travel in clear") && !refused.contains("canary"), "{refused}");
    for endpoint in ["http://127.0.0.1:4317", "http://[::1]:4317", "http://localhost:4317", "https://collector.example"]
    {
        with(endpoint).unwrap();
    }
}

#[test]
fn a_mistake_repeats_nothing_of_a_header() {
    for text in
        ["canary", "a b=canary", "grpc-timeout=canary", "a=canary%zz", "a=1,a=canary", "x-bin=canary", "a=ca%0anary"]
    {
        let refused = loaded(&[("GATEWAY_OTLP_HEADERS", text)]).unwrap_err();
        assert!(refused.contains("GATEWAY_OTLP_HEADERS"), "{refused}");
        assert!(!refused.contains("canary") && !refused.contains("nary"), "{refused}");
    }
}

#[test]
fn an_endpoint_is_a_host() {
    for wrong in ["collector:4317", "http://collector/v1/traces", "ftp://collector", "http://user@collector", "http://"]
    {
        assert!(loaded(&[("GATEWAY_OTLP_ENDPOINT", wrong)]).is_err(), "{wrong}");
    }
}

#[test]
fn ratios_have_four_decimals() {
    for (text, wanted) in [("1", 10_000), ("0", 0), ("0.5", 5000), ("0.0001", 1), ("1.0", 10_000), (" 0.25 ", 2500)] {
        assert_eq!(parse_ratio(text), Ok(wanted), "{text}");
    }
    for text in ["", "2", "1.0001", "0.00001", "-0.1", "1e-3", ".5", "1.", "0,5", "99999"] {
        assert!(parse_ratio(text).is_err(), "{text}");
    }
}

#[test]
fn the_headers_are_no_setting_of_the_file() {
    assert!(keys::ALL.iter().any(|key| key.env.contains(&"GATEWAY_OTLP_HEADERS") && key.yaml.is_none()));
    for name in OTLP_HEADERS.env {
        assert!(keys::is_own_secret(name), "{name}");
    }
}

proptest! {
    #[test]
    fn any_text_is_headers_or_a_mistake(text in any::<String>()) {
        if let Ok(headers) = parse_headers(&text) {
            prop_assert!(headers.len() <= MAX_HEADERS);
            for (name, value) in headers {
                prop_assert!(name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(value.expose()).is_ok());
            }
        }
    }
}
