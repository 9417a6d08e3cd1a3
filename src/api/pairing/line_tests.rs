//! Commands and answers of one socket.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

const SOON: Duration = Duration::from_secs(30);
/// Until it is clear that nobody answers.
const MOMENT: Duration = Duration::from_millis(20);

fn line() -> (Arc<Line>, mpsc::Receiver<Secret>) {
    let (outbound, queue) = mpsc::channel(QUEUE);
    (Arc::new(Line::new(1, outbound, i64::MAX)), queue)
}

fn answer(request_id: &str) -> Relayed {
    let (headers, body) = (BTreeMap::new(), Some(format!("for {request_id}")));
    Relayed { request_id: request_id.to_owned(), status: 200, headers, body, error: None }
}

fn frame() -> Secret {
    Secret::new("frame".to_owned())
}

#[tokio::test]
async fn an_answer_reaches_who_asked_and_nobody_else() {
    let (line, mut queue) = line();
    let bridge = async {
        queue.recv().await.unwrap();
        queue.recv().await.unwrap();
        for id in ["unknown", "two", "one", "one"] {
            line.answer(answer(id));
        }
    };
    let (one, two, ()) = tokio::join!(line.command("one", frame(), SOON), line.command("two", frame(), SOON), bridge);
    assert_eq!((one.unwrap(), two.unwrap()), (answer("one"), answer("two")));
}

#[tokio::test]
async fn a_command_without_an_answer_gives_its_place_back() {
    let (line, _queue) = line();
    let refused = line.command("one", frame(), MOMENT).await.unwrap_err();
    assert_eq!((refused.status().as_u16(), refused.code()), (504, "GATEWAY_RELAY_FAILED"));
    assert!(line.waiting().as_ref().unwrap().is_empty());
}

#[tokio::test]
async fn so_many_commands_may_wait() {
    let (line, _queue) = line();
    let places: Vec<_> =
        (0..MAX_PENDING).map(|number| line.expect(&number.to_string(), oneshot::channel().0).unwrap()).collect();
    assert_eq!(line.command("more", frame(), SOON).await.unwrap_err().code(), "RATE_LIMITED");
    drop(places);
    assert!(line.expect("more", oneshot::channel().0).is_ok());
}

#[tokio::test]
async fn nobody_waits_for_a_socket_that_has_ended() {
    for (lost, status) in [(Lost::Disconnected, 504), (Lost::TooLarge, 502)] {
        let (line, mut queue) = line();
        let ends = async {
            queue.recv().await.unwrap();
            line.close(lost);
        };
        let (refused, ()) = tokio::join!(line.command("one", frame(), SOON), ends);
        let refused = refused.unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.code()), (status, "GATEWAY_RELAY_FAILED"));
        let late = line.command("two", frame(), SOON).await.unwrap_err();
        assert_eq!((late.status().as_u16(), late.code()), (502, "GATEWAY_RELAY_FAILED"));
    }
}

#[tokio::test]
async fn what_a_socket_was_told_first_counts() {
    let (line, _queue) = line();
    line.end(Goodbye::Replaced);
    line.end(Goodbye::Expired);
    assert_eq!(line.told_to_end().await, Goodbye::Replaced);
}

#[tokio::test]
async fn who_answers_is_alive() {
    let (line, mut queue) = line();
    assert!(!line.answers(frame(), MOMENT).await);
    queue.recv().await.unwrap();
    let bridge = async {
        queue.recv().await.unwrap();
        line.note_heard();
    };
    let (alive, ()) = tokio::join!(line.answers(frame(), SOON), bridge);
    assert!(alive);
}

#[test]
fn what_is_shown_of_a_line_is_its_number() {
    let (line, _queue) = line();
    assert_eq!(format!("{line:?}"), "Line { number: 1, .. }");
}
