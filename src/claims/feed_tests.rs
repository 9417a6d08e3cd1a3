#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code may panic")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::claims::fake_api::Asked;
use crate::claims::fake_api::FakeApi;
use crate::claims::fake_api::Reply;
use crate::claims::fake_api::json;
use crate::claims::fake_api::page;
use crate::claims::fake_api::row;

fn limits(page: u32) -> FeedLimits {
    FeedLimits { page, ..FeedLimits::default() }
}

async fn read(api: &FakeApi, limits: &FeedLimits) -> Result<Read, FeedError> {
    read_all(&api.client(), "linear", &Secret::new("sk".to_owned()), limits).await
}

fn numbers(read: &Read) -> BTreeSet<u32> {
    let number = |approved: &Approved| u32::from_be_bytes(approved.public_key.as_bytes()[..4].try_into().unwrap());
    let numbers: BTreeSet<_> = read.approvals.iter().map(number).collect();
    assert_eq!((numbers.len(), read.approvals.len()), (read.count, read.count), "each once");
    numbers
}

#[tokio::test]
async fn every_page_is_read_and_the_query_is_written_in_order() {
    let rows: Vec<u32> = (0..10).collect();
    let api = FakeApi::start(move |asked| json("200 OK", "", &page(asked, &rows, 2000))).await;
    let whole = read(&api, &limits(4)).await.unwrap();
    assert_eq!(numbers(&whole), (0..10).collect());
    let targets: Vec<_> = api.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(targets[0], "/v1/namespaces/claims?limit=4&offset=0&service=linear");
    let offsets: Vec<_> = api.asked().iter().map(|asked| asked.number("offset")).collect();
    assert_eq!(offsets, [0, 4, 8], "the next offset is the sum of the rows");
    assert_eq!((whole.cursor, whole.etag, whole.requests), (None, None, 3));
}

#[tokio::test]
async fn a_gateway_asks_for_500_rows_at_a_time() {
    let rows: Vec<u32> = (0..700).collect();
    let api = FakeApi::start(move |asked| json("200 OK", "", &page(asked, &rows, 2000))).await;
    assert_eq!(read(&api, &FeedLimits::default()).await.unwrap().count, 700);
    let targets: Vec<_> = api.asked().into_iter().map(|asked| asked.target).collect();
    let expected = [0, 500].map(|offset| format!("/v1/namespaces/claims?limit=500&offset={offset}&service=linear"));
    assert_eq!(targets, expected);
}

#[tokio::test]
async fn an_api_that_knows_no_other_offsets_than_its_own_is_read() {
    let rows = [0, 3].map(|offset| {
        let rows: Vec<_> = (offset..(offset + 3).min(5)).map(row).collect();
        format!(r#"{{"claims":[{}],"pagination":{{"has_more":{}}}}}"#, rows.join(","), offset == 0)
    });
    let api = FakeApi::start(move |asked| match asked.number("offset") {
        0 => json("200 OK", "", &rows[0]),
        3 => json("200 OK", "", &rows[1]),
        _ => json("400 Bad Request", "", r#"{"error":"no such page"}"#),
    })
    .await;
    assert_eq!(numbers(&read(&api, &limits(500)).await.unwrap()), (0..5).collect());
}

#[tokio::test]
async fn little_said_of_where_a_page_stands_is_enough() {
    let one = row(1);
    for (body, found) in [
        (format!(r#"{{"claims":[{one}]}}"#), 1),
        (format!(r#"{{"claims":[{one}],"pagination":null}}"#), 1),
        (format!(r#"{{"claims":[{one}],"pagination":{{}}}}"#), 1),
        (format!(r#"{{"claims":[{one}],"pagination":{{"has_more":false}}}}"#), 1),
        (format!(r#"{{"claims":[{one}],"pagination":{{"limit":500,"offset":0,"total":99,"has_more":null}}}}"#), 1),
        (r#"{"claims":null}"#.to_owned(), 0),
        (r#"{"claims":null,"pagination":{"limit":500,"offset":0,"total":0,"has_more":false}}"#.to_owned(), 0),
        (r#"{"claims":[],"pagination":{"limit":500,"offset":0,"total":3,"has_more":true}}"#.to_owned(), 0),
    ] {
        let answered = body.clone();
        let api = FakeApi::start(move |_| json("200 OK", "", &answered)).await;
        let whole = read(&api, &limits(500)).await.unwrap();
        assert_eq!((whole.count, whole.requests), (found, 1), "{body}");
    }
    // What lists no claims at all is another answer: nobody's approval ends by it.
    let api = FakeApi::start(|_| json("200 OK", "", r#"{"pagination":{"has_more":false}}"#)).await;
    assert_eq!(read(&api, &limits(500)).await.unwrap_err().reason(), "NotJson");
}

#[tokio::test]
async fn an_empty_page_is_the_end_whatever_it_says() {
    let api = FakeApi::start(|asked| {
        let rows = if asked.number("offset") == 0 { row(1) + "," + &row(2) } else { String::new() };
        json("200 OK", "", &format!(r#"{{"claims":[{rows}],"pagination":{{"has_more":true}}}}"#))
    })
    .await;
    let whole = read(&api, &limits(2)).await.unwrap();
    assert_eq!((whole.count, whole.requests), (2, 2));
}

/// An API whose rows go from the top after its first answer; `headers` are those of an answer of this offset and number.
async fn shrinking(headers: fn(usize, usize) -> String) -> FakeApi {
    let answers = Mutex::new(0);
    FakeApi::start(move |asked| {
        let mut answers = answers.lock().unwrap();
        let rows: Vec<u32> = (if *answers == 0 { 0 } else { 2 }..9).collect();
        let head = headers(asked.number("offset"), *answers);
        let tag = head.strip_prefix("etag: ").and_then(|rest| rest.split_once("\r\n")).map(|(tag, _)| tag.to_owned());
        *answers += 1;
        if tag.is_some() && tag.as_deref() == asked.header("if-none-match") {
            return Reply::Raw(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec());
        }
        json("200 OK", &head, &page(asked, &rows, 3))
    })
    .await
}

#[tokio::test]
async fn a_list_that_says_it_has_moved_is_read_with_an_overlap() {
    let api = shrinking(|_, answers| format!("sigilum-claims-cursor: e.{}\r\n", answers.min(1))).await;
    let whole = read(&api, &limits(3)).await.unwrap();
    assert_eq!(numbers(&whole), (0..9).collect(), "the rows that went are known to the next reading");
    let offsets: Vec<_> = api.asked().iter().map(|asked| asked.number("offset")).collect();
    assert_eq!(offsets, [0, 3, 2, 0, 2, 4], "a gap is stepped back over; from then on one row overlaps");
    assert_eq!(whole.cursor.as_deref(), Some("e.0"), "a stream from there tells what has moved");
}

#[tokio::test]
async fn a_tag_of_the_first_page_alone_tells_whether_all_is_read_again() {
    let api = shrinking(|offset, answers| match offset {
        0 => format!("etag: \"{}\"\r\n", answers.min(1)),
        _ => String::new(),
    })
    .await;
    let whole = read(&api, &limits(3)).await.unwrap();
    assert_eq!(numbers(&whole), (2..9).collect());
    let offsets: Vec<_> = api.asked().iter().map(|asked| asked.number("offset")).collect();
    assert_eq!(offsets, [0, 3, 6, 0, 0, 3, 6, 0]);
}

#[tokio::test]
async fn where_nothing_tells_of_a_move_the_next_reading_finds_what_was_missed() {
    let api = shrinking(|_, _| String::new()).await;
    let found = numbers(&read(&api, &limits(3)).await.unwrap());
    assert_eq!(found, [0, 1, 2, 5, 6, 7, 8].into(), "two rows were jumped over");
    assert_eq!(numbers(&read(&api, &limits(3)).await.unwrap()), (2..9).collect());
}

#[tokio::test]
async fn a_lower_cap_of_the_api_works_down_to_one_row_a_page() {
    for cap in [1, 2, 3, 7] {
        let rows: Vec<u32> = (0..23).collect();
        let api = FakeApi::start(move |asked| json("200 OK", "", &page(asked, &rows, cap))).await;
        assert_eq!(numbers(&read(&api, &limits(2000)).await.unwrap()).len(), 23, "{cap}");
    }
}

#[tokio::test]
async fn an_unchanged_feed_costs_one_request_without_rows() {
    let api = FakeApi::start(|asked| {
        if asked.header("if-none-match") == Some("\"e.4\"") {
            return Reply::Raw(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec());
        }
        json("200 OK", "etag: \"e.4\"\r\nsigilum-claims-cursor: e.4\r\n", &page(asked, &[1, 2, 3], 2000))
    })
    .await;
    let first = read(&api, &limits(2)).await.unwrap();
    assert_eq!((first.cursor.as_deref(), first.etag.as_deref()), (Some("e.4"), Some("\"e.4\"")));
    let (client, key, limits) = (api.client(), Secret::new("sk".to_owned()), limits(2));
    let source = Source { client: &client, service: "linear", key: &key, limits: &limits };
    let collector = Collector { new: &Vec::<u32>::new, push: |_, _, _, _| {} };
    let before = api.asked().len();
    assert!(read_into(source, Some("\"e.4\""), collector).await.unwrap().is_none());
    assert_eq!(api.asked().len(), before + 1);
    assert!(read_into(source, Some("\"e.3\""), collector).await.unwrap().is_some());
}

#[tokio::test]
async fn rows_are_trimmed_and_judged() {
    let good = row(1);
    let other = row(2).replace("linear", "github");
    let padded = row(3).replace("team-3", " team-3 ");
    let expiring = row(4).replace(r#""service":"linear""#, r#""expires_at":"2030-01-01T00:00:00.000Z""#);
    let endless = row(5).replace(r#""service":"linear""#, r#""expires_at":"soon""#);
    let upper = row(6).replace("team-6", "TEAM-6");
    let blank = r#"{"namespace":" ","public_key":null,"service":"linear"}"#.to_owned();
    let rows = [good, other, padded, expiring, endless, upper, blank].join(",");
    let body = format!(
        r#"{{"claims":[{rows}],"pagination":{{"limit":2000,"offset":0,"total":7,"has_more":false}},"more":1}}"#
    );
    let api = FakeApi::start(move |_| json("200 OK", "", &body)).await;
    let read = read(&api, &limits(2000)).await.unwrap();
    assert_eq!((numbers(&read), read.skipped), ([1, 3, 4].into(), 4));
    assert_eq!(read.approvals[1].namespace.as_str(), "team-3");
    assert_eq!(read.approvals[2].expires_at, Some(UnixSeconds(1_893_456_000)));
}

#[tokio::test]
async fn more_than_may_be_held_is_an_error_and_no_cut() {
    let few = FeedLimits { max_approvals: 5, ..limits(2) };
    let api = FakeApi::start(|asked| json("200 OK", "", &page(asked, &[1, 2, 3, 4, 5, 6], 2000))).await;
    assert_eq!(read(&api, &few).await.unwrap_err(), FeedError::TooMany { found: 6, allowed: 5 });
    // One that understates what it has.
    let api = FakeApi::start(|asked| {
        let rows: Vec<u32> = (0..100).collect();
        json("200 OK", "", &page(asked, &rows, 2000).replace("\"total\":100", "\"total\":4"))
    })
    .await;
    assert_eq!(read(&api, &few).await.unwrap_err(), FeedError::TooMany { found: 6, allowed: 5 });
    let exact = FakeApi::start(|asked| json("200 OK", "", &page(asked, &[1, 2, 3, 4, 5], 2000))).await;
    assert_eq!(read(&exact, &few).await.unwrap().count, 5);
}

#[tokio::test]
async fn an_api_that_contradicts_itself_is_left() {
    let say = |body: &'static str| FakeApi::start(move |_| json("200 OK", "", body));
    let absurd = r#"{"claims":[],"pagination":{"limit":1,"offset":0,"total":18446744073709551615,"has_more":true}}"#;
    assert!(matches!(read(&say(absurd).await, &limits(2)).await.unwrap_err(), FeedError::TooMany { .. }));
    let elsewhere = r#"{"claims":[],"pagination":{"limit":1,"offset":5,"total":3,"has_more":false}}"#;
    assert!(matches!(read(&say(elsewhere).await, &limits(2)).await.unwrap_err(), FeedError::Senseless(_)));
    // The same rows for ever.
    let api = FakeApi::start(|asked| {
        let two = Asked { target: "/x?limit=2&offset=0".to_owned(), headers: Vec::new(), body: Vec::new() };
        let body = page(&two, &[1, 2, 3], 2);
        json("200 OK", "", &body.replace("\"offset\":0", &format!("\"offset\":{}", asked.number("offset"))))
    })
    .await;
    assert_eq!(read(&api, &limits(2)).await.unwrap_err(), FeedError::Senseless("its pages do not end"));
}

#[tokio::test]
async fn a_bad_page_in_the_middle_fails_the_whole() {
    let rows: Vec<u32> = (0..10).collect();
    let api = FakeApi::start(move |asked| match asked.number("offset") {
        0 => json("200 OK", "", &page(asked, &rows, 2000)),
        _ => json("500 Internal Server Error", "", r#"{"error":"x","code":"INTERNAL_ERROR"}"#),
    })
    .await;
    assert_eq!(read(&api, &limits(4)).await.unwrap_err().reason(), "ServerError");
}

/// One thing that happens between two requests.
#[derive(Debug, Clone)]
enum Happens {
    Approve,
    /// The row at this place, counted modulo the length, goes.
    Revoke(usize),
    /// The row at this place is revoked and approved again: it moves to the top.
    Renew(usize),
}

fn happenings() -> impl Strategy<Value = Vec<Vec<Happens>>> {
    let one = prop_oneof![
        Just(Happens::Approve),
        (0..1000_usize).prop_map(Happens::Revoke),
        (0..1000_usize).prop_map(Happens::Renew),
    ];
    proptest::collection::vec(proptest::collection::vec(one, 0..8), 0..40)
}

/// The API's list, which changes after every answer.
struct Model {
    rows: Vec<u32>,
    next: u32,
    /// How often it has changed.
    changes: u64,
    script: std::vec::IntoIter<Vec<Happens>>,
    /// Rows that were there before the first request and were never touched.
    steady: BTreeSet<u32>,
    /// Every row that ever was.
    ever: BTreeSet<u32>,
}

impl Model {
    fn turn(&mut self) {
        for happens in self.script.next().unwrap_or_default() {
            self.changes += 1;
            match happens {
                Happens::Approve => {
                    self.rows.insert(0, self.next);
                    self.ever.insert(self.next);
                    self.next += 1;
                }
                Happens::Revoke(at) if !self.rows.is_empty() => {
                    let gone = self.rows.remove(at % self.rows.len());
                    self.steady.remove(&gone);
                }
                Happens::Renew(at) if !self.rows.is_empty() => {
                    let moved = self.rows.remove(at % self.rows.len());
                    self.steady.remove(&moved);
                    self.rows.insert(0, moved);
                }
                Happens::Revoke(_) | Happens::Renew(_) => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_was_there_throughout_is_never_missed(
        script in happenings(),
        start in 0..60_u32,
        size in 1..9_u32,
        cap in 2..9_usize,
    ) {
        let size = size.max(2);
        let rows: Vec<u32> = (0..start).collect();
        let steady: BTreeSet<u32> = rows.iter().copied().collect();
        let model = Model { next: start, changes: 0, script: script.into_iter(), ever: steady.clone(), steady, rows };
        let model = Arc::new(Mutex::new(model));
        let shared = Arc::clone(&model);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let read = runtime.block_on(async move {
            let api = FakeApi::start(move |asked| {
                let mut model = shared.lock().unwrap();
                let (body, cursor) = (page(asked, &model.rows, cap), model.changes);
                model.turn();
                json("200 OK", &format!("sigilum-claims-cursor: e.{cursor}\r\n"), &body)
            })
            .await;
            read(&api, &limits(size)).await
        });
        let model = model.lock().unwrap();
        let read = read.unwrap();
        let found = numbers(&read);
        prop_assert!(model.steady.is_subset(&found), "missed {:?}", model.steady.difference(&found));
        prop_assert!(found.is_subset(&model.ever));
    }

    #[test]
    fn a_list_that_rests_is_read_exactly(start in 0..80_u32, size in 1..20_u32, cap in 1..20_usize) {
        let rows: Vec<u32> = (0..start).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let read = runtime.block_on(async move {
            let api = FakeApi::start(move |asked| json("200 OK", "", &page(asked, &rows, cap))).await;
            read(&api, &limits(size)).await
        });
        prop_assert_eq!(numbers(&read.unwrap()), (0..start).collect::<BTreeSet<_>>());
    }
}
