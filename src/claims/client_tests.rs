#![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

use super::*;
use crate::claims::fake_api::Asked;
use crate::claims::fake_api::FakeApi;
use crate::claims::fake_api::Reply;
use crate::claims::fake_api::answer;
use crate::claims::fake_api::client;
use crate::claims::fake_api::json;
use crate::domain::time::UnixMillis;

const PATH: &str = "/v1/namespaces/claims?limit=1&offset=0&service=linear";

async fn ask(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (Result<Answer, ApiError>, FakeApi) {
    let api = FakeApi::start(reply).await;
    let key = Secret::new("sk_live_0123".to_owned());
    let call = Call { patience: Duration::from_secs(2), ..Call::get(PATH, &key, 100) };
    (api.client().send(call).await, api)
}

/// What a bad answer is called.
async fn refused(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (ApiError, String) {
    let (result, _) = ask(reply).await;
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(!text.contains("sk_live"), "{text}");
    (error, text)
}

#[tokio::test]
async fn a_request_is_signed_and_carries_the_key() {
    let (result, api) = ask(|_| json("200 OK", "etag: \"7\"\r\n", "{}")).await;
    let answer = result.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("etag"), &answer.body[..]), (200, Some("\"7\""), &b"{}"[..]));
    let asked = api.asked();
    let [asked] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(asked.target, PATH);
    assert_eq!(asked.header("authorization"), Some("Bearer sk_live_0123"));
    assert_eq!(asked.header("sigilum-namespace"), Some("acme"));
    assert_eq!(asked.header("sigilum-subject"), Some("acme"));
    let input = asked.header("signature-input").unwrap();
    assert!(input.starts_with(r#"sig1=("@method" "@target-uri" "sigilum-namespace" "sigilum-subject""#), "{input}");
    assert!(asked.header("signature").is_some() && asked.header("content-digest").is_none());
}

#[tokio::test]
async fn a_not_modified_is_a_good_answer() {
    let (result, _) = ask(|_| Reply::Raw(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec())).await;
    assert_eq!(result.unwrap().status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn each_refusal_says_what_it_is_and_what_to_do() {
    let (error, text) = refused(|_| json("401 Unauthorized", "", r#"{"error":"bad key","code":"UNAUTHORIZED"}"#)).await;
    assert_eq!((error.reason(), error.status()), ("Unauthorized", Some(401)));
    assert_eq!(text, "the API answers 401 UNAUTHORIZED bad key; check the service key and the gateway's identity");
    let (error, text) = refused(|_| json("403 Forbidden", "", r#"{"error":"no","code":"FORBIDDEN"}"#)).await;
    assert_eq!(error.reason(), "Unauthorized");
    assert!(text.ends_with("check that the service key belongs to this service"), "{text}");
    let (error, _) = refused(|_| json("503 Service Unavailable", "retry-after: 999\r\n", r#"{"error":"later"}"#)).await;
    assert_eq!((error.reason(), error.retry_after()), ("ServerError", Some(MAX_RETRY_AFTER)));
    // A proxy's own page is no sign of a wrong address.
    let (error, _) = refused(|_| answer("502 Bad Gateway", "content-type: text/html\r\n", "<html>")).await;
    assert_eq!((error.reason(), error.status()), ("ServerError", Some(502)));
    let (error, text) = refused(|_| json("429 Too Many Requests", "retry-after: 7\r\n", "{}")).await;
    assert_eq!((error.retry_after(), text.contains("asked again later")), (Some(Duration::from_secs(7)), true));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (error, text) = refused(|_| answer("302 Found", "location: https://elsewhere.example/x\r\n", "")).await;
    assert_eq!(error.reason(), "Redirect");
    assert!(text.contains("https://elsewhere.example/x") && text.contains("SIGILUM_API_URL"), "{text}");
}

#[tokio::test]
async fn a_web_page_and_half_a_json_are_told_apart() {
    let page = |_: &Asked| answer("200 OK", "content-type: text/html; charset=utf-8\r\n", "<html>hello");
    let (result, _) = ask(page).await;
    let error = result.unwrap().json::<serde_json::Value>().unwrap_err();
    assert!(error.to_string().contains("a web page (text/html)"), "{error}");
    let (result, _) = ask(|_| json("200 OK", "", r#"{"claims":[{"#)).await;
    let error = result.unwrap().json::<serde_json::Value>().unwrap_err();
    assert!(error.to_string().contains("JSON that breaks off"), "{error}");
    let (error, _) = refused(|_| answer("404 Not Found", "content-type: text/html\r\n", "<html>")).await;
    assert_eq!((error.reason(), error.status()), ("NotJson", Some(404)));
    // Announced and not sent.
    let (error, _) = refused(|_| {
        Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{".to_vec())
    })
    .await;
    assert_eq!(error.reason(), "BrokenOff");
}

#[tokio::test]
async fn a_clock_that_is_off_is_named() {
    let date = |by: i64| {
        let at = SystemClock.now().wall.0.saturating_add_signed(by * 1000);
        // RFC 3339 to the form of a header, without a formatter for it.
        let at = time::OffsetDateTime::from_unix_timestamp(i64::try_from(UnixMillis(at).0 / 1000).unwrap()).unwrap();
        at.format(&time::format_description::well_known::Rfc2822).unwrap().replace("+0000", "GMT")
    };
    let body = r#"{"error":"too old","code":"SIGNATURE_EXPIRED"}"#;
    let later = date(300);
    let (error, text) = refused(move |_| json("401 Unauthorized", &format!("date: {later}\r\n"), body)).await;
    let ApiError::Clock { seconds: 295..=305, ahead: false } = error else { panic!("{error:?}") };
    assert!(text.contains("set this machine's clock (it is behind)"), "{text}");
    // With the right time it is what it says.
    let now = date(0);
    let (error, _) = refused(move |_| json("401 Unauthorized", &format!("date: {now}\r\n"), body)).await;
    assert_eq!(error.reason(), "Unauthorized");
}

#[tokio::test]
async fn what_is_too_large_too_slow_or_not_there_is_named() {
    let (error, _) = refused(|_| json("200 OK", "", &"x".repeat(101))).await;
    assert_eq!(error, ApiError::TooLarge { limit: 100 });
    let unannounced = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5000));
    let (error, _) = refused(move |_| Reply::Raw(unannounced.clone().into_bytes())).await;
    assert_eq!(error, ApiError::TooLarge { limit: 100 });
    let (error, _) = refused(|_| Reply::Silence).await;
    assert_eq!(error.reason(), "TimedOut");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let key = Secret::new("k".to_owned());
    let error = client(&address).send(Call::get(PATH, &key, 100)).await.unwrap_err();
    assert_eq!(error.reason(), "Unreachable");
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn a_key_that_no_header_can_carry_is_not_sent() {
    let api = FakeApi::start(|_| json("200 OK", "", "{}")).await;
    for bad in ["a\nb", "a b", "ü"] {
        let key = Secret::new(bad.to_owned());
        let error = api.client().send(Call::get(PATH, &key, 100)).await.unwrap_err();
        assert_eq!(error.reason(), "Request");
    }
    assert!(api.asked().is_empty());
    let identity =
        Arc::new(crate::identity::Identity::generate(Namespace::parse("acme").unwrap(), UnixSeconds(1)).unwrap());
    for bad in ["", "ftp://x", "api.sigilum.id", "http://"] {
        assert!(matches!(ApiClient::new(bad, Arc::clone(&identity)), Err(ClientError::Address(_))), "{bad}");
    }
}

#[test]
fn an_address_that_shows_what_is_sent_is_known() {
    for (base, exposed) in [
        ("http://127.0.0.1:8787", false),
        ("http://127.8.9.1", false),
        ("http://[::1]:8787", false),
        ("http://localhost:8787", false),
        ("https://api.example.com", false),
        ("http://api.example.com", true),
        ("http://192.0.2.1:8787", true),
        ("http://localhost.example.com", true),
    ] {
        let identity = Identity::generate(Namespace::parse("acme").unwrap(), SystemClock.now().seconds()).unwrap();
        assert_eq!(ApiClient::new(base, Arc::new(identity)).unwrap().is_exposed(), exposed, "{base}");
    }
}
