#![allow(clippy::unwrap_used, reason = "test code may panic")]

use serde_json::json;

use super::*;

/// A well gateway, or one with these members changed.
fn gathered(change: impl FnOnce(&mut serde_json::Value)) -> Gathered {
    let mut report = json!({
        "schemaVersion": 1, "ok": true, "profile": "default", "generatedAt": "2026-01-01T00:05:00Z",
        "service": {
            "manager": "none", "label": "", "loaded": false, "enabled": false, "unitPath": null, "reloadPending": false,
            "drift": [],
            "runtime": {
                "status": "running", "pid": 41, "since": "2026-01-01T00:00:00Z", "lastExitStatus": null,
                "lastExitReason": null, "restarts": 0,
            },
        },
        "config": {
            "cli": {"path": "/h/gateway.yaml", "exists": true, "valid": true, "issues": []},
            "service": {"path": "/h/gateway.yaml", "exists": true, "valid": true, "issues": []},
            "mismatch": false, "file": "/h/gateway.yaml", "fileError": null, "appliedConfigHash": null, "configRevisionHash": null, "restartRequired": [],
        },
        "gateway": {
            "version": "0.1.0", "instanceId": "i", "mode": "local", "bindMode": "loopback",
            "control": {"host": "127.0.0.1", "port": 38100, "portSource": "default"},
            "runtimeListener": {"host": "127.0.0.1", "port": 38000, "portSource": "default"},
            "authMode": "token", "reloadMode": "hybrid", "uptimeMs": 1, "startupPhase": null,
        },
        "envoy": {
            "managed": true, "pid": 43, "version": "1.40.0", "state": "LIVE", "restarts": 0,
            "xds": {
                "lds": {"version": 1, "acked": true}, "rds": {"version": 1, "acked": true},
                "cds": {"version": 1, "acked": true}, "lastNack": null,
            },
        },
        "authz": {
            "reachable": true, "p50Ms": null, "p99Ms": null, "decisions": {"allow": 1, "deny": 2, "error": 0},
            "failClosed": true,
        },
        "secrets": {"generation": 1, "state": "ok", "ageSeconds": 3, "refs": {"active": 1, "inactive": 0, "unresolved": 0}},
        "claims": {"state": "fresh", "ageSeconds": 2, "approved": 5},
        "connections": {"active": 3, "disabled": 1, "degraded": 0, "rotationDue": 0},
        "pairing": {"bridge": "off"},
        "port": [],
        "rpc": {
            "ok": true, "url": "http://127.0.0.1:38100", "capability": "admin_capable", "error": null,
            "authWarning": null, "latencyMs": 4,
        },
        "readiness": {"ready": true, "failures": [], "advisories": [], "messages": []},
        "logFile": "/d/logs/admin.log", "lastError": null, "lastShutdown": null, "legacyServices": [], "extraServices": [],
    });
    change(&mut report);
    Gathered {
        report: serde_json::from_value(report).unwrap(),
        refusal: None,
        wants: None,
        ingress: Some(Ok(())),
        log_is_outside: false,
        next: vec![],
    }
}

#[test]
fn ten_lines_stand_in_a_fixed_order_below_each_other() {
    let expected = [
        "Runtime:             running (pid 41, for 5m)",
        "Envoy:               live (1.40.0, pid 43)",
        "Authz:               ok",
        "Connectivity probe:  ok (http://127.0.0.1:38100 and 127.0.0.1:38000, 4 ms)",
        "Capability:          admin_capable",
        "Secrets:             ok gen 1 (references: 1)",
        "Claims:              fresh (approved: 5, 2s old)",
        "Connections:         3 active, 1 disabled",
        "Config:              /h/gateway.yaml (valid)",
        "Log file:            /d/logs/admin.log",
    ];
    assert_eq!(lines(&gathered(|_| {}), false), expected);
}

#[test]
fn in_a_container_the_log_is_where_its_platform_keeps_it() {
    let told = lines(&Gathered { log_is_outside: true, ..gathered(|_| {}) }, false);
    let line = told.last().unwrap();
    assert!(
        line.contains("kubectl logs") && line.contains("docker compose logs") && !line.contains("/d/logs"),
        "{line}"
    );
}

#[test]
fn an_open_gate_is_not_told_like_a_closed_one() {
    let broken = |message: &str| {
        let message = message.to_owned();
        lines(
            &gathered(|report| {
                report["authz"]["reachable"] = json!(false);
                report["readiness"] = json!({
                    "ready": false, "failures": ["AuthzReachable"], "advisories": [], "messages": [message],
                });
            }),
            false,
        )
    };
    let closed = broken("AuthzReachable: authz unreachable (failing closed): no answer");
    assert!(closed.contains(&"Authz:               unreachable (failing closed)".to_owned()), "{closed:?}");
    let open = broken("AuthzReachable: an unsigned request was let through (HTTP 200)");
    assert!(open.iter().any(|line| line.contains("OPEN")), "{open:?}");
}

#[test]
fn names_of_strangers_give_the_terminal_no_orders_and_keep_to_their_line() {
    let told = lines(
        &gathered(|report| {
            report["config"]["cli"]["path"] = json!("/h/\u{1b}]0;x\u{7}\nRuntime: stopped");
        }),
        false,
    );
    assert_eq!(told.len(), 10);
    assert!(told.iter().all(|line| !line.chars().any(char::is_control)), "{told:?}");
}
