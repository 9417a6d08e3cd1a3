//! Claims: the table of situations, what is not valid, limits under haste, policies, usage, tenancy.

use super::*;

#[tokio::test]
async fn every_situation_of_a_submission() {
    let server = Server::start_with(|config| {
        config.limits =
            Limits { max_pending: 2, max_agents_per_service: 2, max_services_per_namespace: 1, ..Limits::default() };
    })
    .await;
    server.owner("alice").await;
    let (mail, docs) = (server.service("alice", "mail").await, server.service("alice", "docs").await);
    let agents: Vec<Agent> = (0..6).map(|_| Agent::new("alice")).collect();
    // Nobody's namespace; then pending; then known.
    let nobody = server.claim(&Agent::new("nobody"), &mail, "mail").await;
    assert_eq!(nobody.code(), (404, "NOT_FOUND".to_owned()));
    let first = server.claim(&agents[0], &mail, "mail").await;
    assert_eq!((first.status, first.text("/status").as_str()), (201, "pending"));
    let claim_id = first.text("/claim_id");
    assert!(claim_id.starts_with("cl_") && claim_id.len() == 27, "{claim_id}");
    assert_eq!(first.text("/service"), "mail");
    let again = server.claim(&agents[0], &mail, "mail").await;
    assert_eq!((again.status, again.text("/claim_id")), (200, claim_id.clone()));
    assert_eq!(again.text("/status"), "pending");
    server.approve(&claim_id, None).await;
    let again = server.claim(&agents[0], &mail, "mail").await;
    assert_eq!((again.status, again.text("/status").as_str()), (200, "approved"));
    // A second service is one too many; more agents than fit; more pending than fit.
    let other = server.claim(&agents[0], &docs, "docs").await;
    assert_eq!((other.status, other.text("/status").as_str()), (201, "rejected"));
    server.claim(&agents[1], &mail, "mail").await;
    server.claim(&agents[2], &mail, "mail").await;
    let third = server.claim(&agents[3], &mail, "mail").await;
    assert_eq!((third.status, third.text("/status").as_str()), (201, "rejected"));
    assert!(third.text("/message").contains("wait"), "{third:?}");
    server.policy("alice", "{\"maxPendingLimit\":false}").await;
    let more = server.claim(&agents[4], &mail, "mail").await;
    assert_eq!((more.status, more.text("/status").as_str()), (201, "pending"));
    server.approve(&more.text("/claim_id"), None).await;
    let full = server.claim(&agents[5], &mail, "mail").await;
    assert_eq!((full.status, full.text("/status").as_str()), (201, "rejected"));
    assert!(full.text("/message").contains("agents"), "{full:?}");
    server.end().await;
}

#[tokio::test]
async fn a_key_is_needed_and_must_be_of_the_service() {
    let server = Server::start().await;
    server.owner("alice").await;
    let service = server.service("alice", "mail").await;
    let alice = Agent::new("alice");
    let none = server.post("/v1/claims", &alice, None, &alice.submission("mail")).await;
    assert_eq!(none.code(), (401, "UNAUTHORIZED".to_owned()));
    let wrong = Service { key: format!("sk_live_{}", "0".repeat(48)), ..service.clone() };
    assert_eq!(server.claim(&alice, &wrong, "mail").await.code(), (401, "UNAUTHORIZED".to_owned()));
    assert_eq!(server.claim(&alice, &service, "docs").await.code(), (403, "FORBIDDEN".to_owned()));
    server.sql("UPDATE service_api_keys SET revoked_at_ms = 1 WHERE service_id = ?1", vec![service.id.clone()]).await;
    assert_eq!(server.claim(&alice, &service, "mail").await.code(), (401, "UNAUTHORIZED".to_owned()));
    server.end().await;
}

#[tokio::test]
async fn everything_that_is_not_valid_is_listed() {
    let server = Server::start().await;
    server.owner("alice").await;
    let service = server.service("alice", "mail").await;
    let alice = Agent::new("alice");
    for text in ["", "[]", "{", "\"x\"", "{\"a\":}"] {
        let reply = server.post("/v1/claims", &alice, Some(&service), text).await;
        assert_eq!(reply.code(), (400, "INVALID_JSON".to_owned()), "{text}");
    }
    let body = serde_json::json!({
        "namespace": "alice", "public_key": alice.public_key(), "service": 7, "agent_ip": "a\nb", "nonce": "short",
        "subject": "s".repeat(257), "agent_id": ["x"], "agent_name": "n".repeat(129),
    });
    let reply = server.post("/v1/claims", &alice, Some(&service), &body.to_string()).await;
    assert_eq!(reply.code(), (400, "VALIDATION_ERROR".to_owned()));
    let details = reply.json()["details"].as_array().unwrap().clone();
    let fields: Vec<&str> = details.iter().map(|detail| detail["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["service", "agent_ip", "nonce", "subject", "agent_id", "agent_name"]);
    assert!(details.iter().all(|detail| detail["message"].as_str().unwrap().contains("must")));
    // Nothing was written; and a nonce counts once per service.
    assert_eq!(server.number("SELECT count(*) FROM authorizations").await, 0);
    let body = alice.submission("mail");
    assert_eq!(server.post("/v1/claims", &alice, Some(&service), &body).await.status, 201);
    let again = server.post("/v1/claims", &alice, Some(&service), &body).await;
    assert_eq!(again.code(), (409, "NONCE_REPLAY".to_owned()));
    server.end().await;
}

#[tokio::test]
async fn an_agents_address_is_what_the_gateway_calls_it() {
    let server = Server::start().await;
    server.owner("alice").await;
    let service = server.service("alice", "mail").await;
    let send = async |text: &str| {
        let alice = Agent::new("alice");
        let mut body: Value = serde_json::from_str(&alice.submission("mail")).unwrap();
        body["agent_ip"] = Value::from(text);
        server.post("/v1/claims", &alice, Some(&service), &body.to_string()).await
    };
    for text in [" unknown\n", "1.2.3.4, 5.6.7.8", "127.0.0.1:1234", "Zoë's laptop"] {
        assert_eq!(send(text).await.status, 201, "{text}");
    }
    let kept = "SELECT count(*) FROM authorizations WHERE agent_ip IN
                    ('unknown', '1.2.3.4, 5.6.7.8', '127.0.0.1:1234', 'Zoë''s laptop')";
    assert_eq!(server.number(kept).await, 4, "without the blanks around them");
    for text in ["", "  ", "a\tb", "a\u{1b}[2J", &"x".repeat(65)] {
        let reply = send(text).await;
        assert_eq!((reply.code().0, reply.text("/details/0/field")), (400, "agent_ip".to_owned()), "{text:?}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_name_stands_in_for_the_subject_of_older_gateways() {
    let server = Server::start().await;
    server.owner("alice").await;
    let service = server.service("alice", "mail").await;
    let alice = Agent::new("alice");
    let body = serde_json::json!({
        "namespace": "alice", "public_key": alice.public_key(), "service": "mail", "agent_ip": "::1",
        "nonce": "12345678", "agent_name": "customer-9",
    })
    .to_string();
    let mut headers = alice.sign(&Draft::new("POST", &server.url("/v1/claims")).body(&body));
    headers.extend([service.bearer(), ("x-sigilum-claim-binding".to_owned(), "namespace-only".to_owned())]);
    assert_eq!(server.send("POST", "/v1/claims", &headers, body.as_bytes()).await.status, 201);
    let moved = "SELECT count(*) FROM authorizations WHERE subject = 'customer-9' AND agent_name IS NULL";
    assert_eq!(server.number(moved).await, 1);
    server.end().await;
}

#[tokio::test]
async fn a_refused_key_may_ask_again_a_few_times_and_begins_anew() {
    let server = Server::start().await;
    server.owner("alice").await;
    let service = server.service("alice", "mail").await;
    let alice = Agent::new("alice");
    let mut last = server.claim(&alice, &service, "mail").await.text("/claim_id");
    server.sql("UPDATE authorizations SET created_at_ms = ?1", vec!["5".to_owned()]).await;
    // What a policy would approve: not a key to which the owner said no.
    server.policy("alice", "{\"autoApproveTrusted\":true,\"trustedServices\":[\"mail\"]}").await;
    for _ in 0..3 {
        server.end_claim(&last, Status::Pending, Status::Rejected).await;
        let anew = server.claim(&alice, &service, "mail").await;
        assert_eq!((anew.status, anew.text("/status").as_str()), (201, "pending"));
        assert_ne!(anew.text("/claim_id"), last);
        last = anew.text("/claim_id");
    }
    assert_eq!(server.number("SELECT count(*) FROM authorizations").await, 1);
    assert!(server.number("SELECT created_at_ms FROM authorizations").await > now_ms() - 60_000);
    server.end_claim(&last, Status::Pending, Status::Revoked).await;
    let soon = server.claim(&alice, &service, "mail").await;
    assert_eq!((soon.status, soon.text("/status").as_str(), soon.text("/claim_id")), (200, "revoked", last.clone()));
    // Once what it asked has been forgotten.
    server.sql("UPDATE nonces SET expires_at_ms = ?1", vec!["5".to_owned()]).await;
    let later = server.claim(&alice, &service, "mail").await;
    assert_eq!((later.status, later.text("/status").as_str()), (201, "pending"));
    assert_ne!(later.text("/claim_id"), last);
    // An expired one may ask at once, and nobody said no to it: the policy counts.
    server.end_claim(&later.text("/claim_id"), Status::Pending, Status::Expired).await;
    assert_eq!(server.claim(&alice, &service, "mail").await.text("/status"), "approved");
    server.end().await;
}

#[tokio::test]
async fn limits_hold_for_those_who_come_at_the_same_time() {
    let server = Server::start_with(|config| config.limits.max_pending = 5).await;
    server.owner("alice").await;
    let service = server.service("alice", "mail").await;
    let agents: Vec<Agent> = (0..25).map(|_| Agent::new("alice")).collect();
    let replies =
        futures_util::future::join_all(agents.iter().map(|agent| server.claim(agent, &service, "mail"))).await;
    let pending = replies.iter().filter(|reply| reply.text("/status") == "pending").count();
    assert_eq!(pending, 5);
    assert!(replies.iter().all(|reply| reply.status == 201));
    server.end().await;
}

#[tokio::test]
async fn policies_approve_what_somebody_vouches_for() {
    let server = Server::start().await;
    server.owner("alice").await;
    server.owner("bob").await;
    let (own, foreign) = (server.service("alice", "mail").await, server.service("bob", "mail").await);
    server.policy("alice", "{\"autoApproveTrusted\":true,\"trustedServices\":[\"mail\"]}").await;
    let status = async |service: &Service| server.claim(&Agent::new("alice"), service, "mail").await.text("/status");
    assert_eq!(status(&own).await, "approved");
    assert_eq!(status(&foreign).await, "pending", "somebody else's service of the same slug is not the trusted one");
    // By address: what we see, or what a gateway of the owner's own service reports; never what an agent says.
    server.policy("alice", "{\"autoApproveIP\":true,\"trustedIPRanges\":[\"192.0.2.0/24\"]}").await;
    assert_eq!(status(&own).await, "pending", "the agent's own word for 192.0.2.9");
    let reported = async |service: &Service| {
        let (agent, gateway) = (Agent::new("alice"), Agent::new("alice"));
        let body = agent.submission("mail");
        let mut headers = gateway.sign(&Draft::new("POST", &server.url("/v1/claims")).body(&body));
        headers.extend([service.bearer(), ("x-sigilum-claim-binding".to_owned(), "namespace-only".to_owned())]);
        server.send("POST", "/v1/claims", &headers, body.as_bytes()).await.text("/status")
    };
    assert_eq!(reported(&own).await, "approved");
    assert_eq!(reported(&foreign).await, "pending");
    server.policy("alice", "{\"autoApproveIP\":true,\"trustedIPRanges\":[\"127.0.0.0/8\"]}").await;
    assert_eq!(status(&foreign).await, "approved", "the address the connection came from");
    server.end().await;
}

#[tokio::test]
async fn a_pending_claim_expires_unless_its_owner_lets_it_wait() {
    let server = Server::start().await;
    server.owner("alice").await;
    server.owner("bob").await;
    let service = server.service("alice", "mail").await;
    server.policy("bob", "{\"autoExpire\":false}").await;
    for namespace in ["alice", "bob"] {
        assert_eq!(server.claim(&Agent::new(namespace), &service, "mail").await.status, 201);
    }
    let day = 24 * 3_600_000;
    let expire =
        |before_ms: i64| server.db().write(move |db| Ok(crate::api::ledger::expire_pending(db, before_ms, now_ms())?));
    assert_eq!(expire(now_ms() - day).await.unwrap(), 0);
    assert_eq!(expire(now_ms() + 1).await.unwrap(), 1);
    let left = "SELECT count(*) FROM authorizations WHERE status = 'pending' AND namespace = 'bob'";
    assert_eq!(server.number(left).await, 1);
    assert_eq!(server.number("SELECT count(*) FROM authorizations WHERE status = 'expired'").await, 1);
    // However many namespaces let theirs wait, the others' end.
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
                INSERT INTO users (id, email, namespace, settings, created_at_ms, updated_at_ms)
                SELECT 'user_a' || i, 'x', 'a' || i, '{\"policy\":{\"autoExpire\":false}}', 0, 0 FROM n";
    server.sql(many, Vec::new()).await;
    let claims = "INSERT INTO authorizations (service_id, namespace, public_key, claim_id, status, agent_ip,
                      created_at_ms)
                  SELECT ?1, namespace, 'k', 'cl_' || namespace, 'pending', '', 0 FROM users WHERE id LIKE 'user_a%'
                  UNION ALL SELECT ?1, 'zoe', 'k', 'cl_zoe', 'pending', '', 0";
    server.sql(claims, vec![service.id.clone()]).await;
    expire(1).await.unwrap();
    let expired = "SELECT count(*) FROM authorizations WHERE status = 'expired' AND claim_id = 'cl_zoe'";
    assert_eq!(server.number(expired).await, 1);
    let waiting = "SELECT count(*) FROM authorizations WHERE status = 'pending' AND created_at_ms = 0";
    assert_eq!(server.number(waiting).await, 600);
    server.end().await;
}

fn event(agent: &Agent, id: &str) -> serde_json::Value {
    serde_json::json!({
        "event_id": id, "namespace": agent.namespace, "service": "mail", "public_key": agent.public_key(),
        "subject": "customer-1", "protocol": "http", "action": "proxy", "outcome": "success", "status_code": 200,
        "duration_ms": 12, "response_bytes": 34, "request_method": "GET", "request_path": "/v1/x",
    })
}

#[tokio::test]
async fn the_claims_of_another_owner_do_not_fill_the_room_of_ones_own() {
    let server = Server::start_with(|config| config.limits.max_pending = 2).await;
    server.owner("alice").await;
    server.owner("mallory").await;
    let (own, foreign) = (server.service("alice", "mail").await, server.service("mallory", "mall").await);
    let status =
        async |service: &Service, slug: &str| server.claim(&Agent::new("alice"), service, slug).await.text("/status");
    for expected in ["pending", "pending", "rejected"] {
        assert_eq!(status(&foreign, "mall").await, expected);
    }
    for expected in ["pending", "pending", "rejected"] {
        assert_eq!(status(&own, "mail").await, expected);
    }
    server.end().await;
}

#[tokio::test]
async fn a_usage_event_counts_once_per_service() {
    let server = Server::start().await;
    server.owner("alice").await;
    server.owner("bob").await;
    let (own, foreign) = (server.service("alice", "mail").await, server.service("bob", "mail").await);
    let alice = Agent::new("alice");
    let body = event(&alice, "e-1").to_string();
    let send =
        async |service: Option<&Service>, body: &str| server.post("/v1/usage/events", &alice, service, body).await;
    let first = send(Some(&own), &body).await;
    assert_eq!((first.status, first.json()["duplicate"].clone()), (201, Value::Bool(false)));
    let again = send(Some(&own), &body).await;
    assert_eq!((again.status, again.json()["duplicate"].clone()), (200, Value::Bool(true)));
    assert_eq!(send(None, &body).await.code(), (401, "UNAUTHORIZED".to_owned()));
    // Another owner's service: only once the namespace has to do with it, and then the same id is another event.
    assert_eq!(send(Some(&foreign), &body).await.code(), (403, "FORBIDDEN".to_owned()));
    let claim = server.claim(&alice, &foreign, "mail").await.text("/claim_id");
    // Asking is not enough: anybody can, in any name.
    assert_eq!(send(Some(&foreign), &body).await.code(), (403, "FORBIDDEN".to_owned()));
    server.approve(&claim, None).await;
    assert_eq!(send(Some(&foreign), &body).await.status, 201);
    let mut bad = event(&alice, "e-2");
    bad["status_code"] = 99.into();
    bad["protocol"] = "ftp".into();
    bad["response_bytes"] = (-1).into();
    let refused = send(Some(&own), &bad.to_string()).await;
    assert_eq!(refused.code(), (400, "VALIDATION_ERROR".to_owned()));
    assert_eq!(refused.json()["details"].as_array().unwrap().len(), 3);
    let mut other = event(&alice, "e-3");
    other["service"] = "docs".into();
    assert_eq!(send(Some(&own), &other.to_string()).await.code(), (403, "FORBIDDEN".to_owned()));
    let second = Agent::new("alice");
    let reply = server.post("/v1/usage/events", &second, Some(&own), &body).await;
    assert_eq!(reply.code(), (403, "SIGNATURE_KEY_MISMATCH".to_owned()));
    server.end().await;
}

#[tokio::test]
async fn a_batch_stores_what_is_good_and_names_the_rest() {
    let server = Server::start().await;
    server.owner("alice").await;
    let service = server.service("alice", "mail").await;
    let (gateway, agent, mallory) = (Agent::new("alice"), Agent::new("alice"), Agent::new("mallory"));
    let events = serde_json::json!({
        "events": [event(&agent, "e-1"), event(&agent, "e-2"), event(&agent, "e-1"), event(&mallory, "e-3"), 7, {"event_id": "e-4"}],
    });
    let send = async |body: &str| server.post("/v1/usage/events/batch", &gateway, Some(&service), body).await;
    let reply = send(&events.to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let json = reply.json();
    assert_eq!((json["accepted"].as_u64(), json["duplicate"].as_u64()), (Some(2), Some(1)));
    let refused: Vec<(&str, &str)> = json["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["event_id"].as_str().unwrap(), one["code"].as_str().unwrap()))
        .collect();
    let expected = [("e-3", "SIGNATURE_NAMESPACE_MISMATCH"), ("", "VALIDATION_ERROR"), ("e-4", "VALIDATION_ERROR")];
    assert_eq!(refused, expected);
    assert_eq!(server.number("SELECT count(*) FROM usage_events").await, 2);
    // When it happened counts, where that can be: an event may have waited for us.
    let (begun, day) = (now_ms(), 24 * 3_600_000);
    let at = |id: &str, ms: i64| {
        let mut event = event(&agent, id);
        event["occurred_at"] = moment::iso(ms).into();
        event
    };
    let mut never = event(&agent, "t-4");
    never["occurred_at"] = "noon".into();
    let times = [at("t-1", begun - 7 * day), at("t-2", begun - 31 * day), at("t-3", begun + day), never];
    let json = send(&serde_json::json!({ "events": times }).to_string()).await.json();
    assert_eq!((json["accepted"].as_u64(), &json["refused"][0]["event_id"]), (Some(3), &Value::from("t-4")));
    let stored = "SELECT created_at_ms FROM usage_events WHERE event_id = 't-1'";
    assert_eq!(server.number(stored).await, begun - 7 * day);
    for stored in [
        "SELECT created_at_ms FROM usage_events WHERE event_id = 't-2'",
        "SELECT created_at_ms FROM usage_events WHERE event_id = 't-3'",
    ] {
        let stored = server.number(stored).await;
        assert!((begun..=now_ms()).contains(&stored), "{stored}");
    }
    let many: Vec<Value> = (0..501).map(|_| Value::Null).collect();
    let many = serde_json::json!({ "events": many }).to_string();
    assert_eq!(send(&many).await.code(), (400, "VALIDATION_ERROR".to_owned()));
    assert_eq!(send("{\"events\":{}}").await.code(), (400, "VALIDATION_ERROR".to_owned()));
    assert_eq!(send("[]").await.code(), (400, "INVALID_JSON".to_owned()));
    server.end().await;
}

#[tokio::test]
async fn verify_answers_for_the_right_one_of_two_services() {
    let server = Server::start().await;
    server.owner("alice").await;
    server.owner("bob").await;
    let (own, foreign) = (server.service("alice", "mail").await, server.service("bob", "mail").await);
    let docs = server.service("bob", "docs").await;
    let alice = Agent::new("alice");
    let ask = async |slug: &str, agent: &Agent| {
        let key = agent.public_key().replace('+', "%2B");
        server.get(&format!("/v1/verify?namespace=alice&public_key={key}&service={slug}"), agent, None).await
    };
    let none = ask("mail", &alice).await;
    assert_eq!((none.status, none.text("/reason").as_str()), (200, "no_approved_claim"));
    // Approved for bob's `mail`: alice has a `mail` of her own, and that is the one meant.
    server.approved(&alice, &foreign, "mail").await;
    assert_eq!(ask("mail", &alice).await.json()["authorized"], Value::Bool(false));
    let claim_id = server.approved(&alice, &own, "mail").await;
    let yes = ask("mail", &alice).await;
    assert_eq!((yes.json()["authorized"].clone(), yes.text("/claim_id")), (Value::Bool(true), claim_id));
    assert!(yes.text("/approved_at").ends_with('Z'));
    // Of `docs` there is bob's alone.
    let claim_id = server.approved(&alice, &docs, "docs").await;
    assert_eq!(ask("docs", &alice).await.text("/claim_id"), claim_id);
    assert_eq!(ask("docs", &Agent::new("alice")).await.json()["authorized"], Value::Bool(false));
    // An approval whose time is over is none, whether or not anybody has written that down yet.
    server.sql("UPDATE authorizations SET expires_at_ms = 1", Vec::new()).await;
    assert_eq!(ask("docs", &alice).await.json()["authorized"], Value::Bool(false));
    for bad in ["namespace=alice", "namespace=alice&public_key=x&service=mail", "namespace=alice&namespace=alice"] {
        let reply = server.get(&format!("/v1/verify?{bad}"), &alice, None).await;
        assert_eq!(reply.code(), (400, "VALIDATION_ERROR".to_owned()), "{bad}");
    }
    server.end().await;
}
