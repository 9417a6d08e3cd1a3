//! What it costs to be seen: the gateway without its access log, scraped, traced, beside the gateway as it is.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use sigilum::domain::request::Stage;
use sigilum::sys::clock::Stopwatch;
use sigilum::telemetry::decision_times::DecisionTimes;

use crate::BURST;
use crate::CONNECTIONS;
use crate::Kind;
use crate::ROUNDS;
use crate::accounting::Reading;
use crate::load;
use crate::make;
use crate::report::Row;
use crate::stacks::Ground;
use crate::stacks::Stack;
use crate::support::client;
use crate::support::client::Request;
use crate::support::collector::Collector;
use crate::support::process::wait_until;

/// How often /metrics is read: ten times as often as anybody does, so that it shows.
const SCRAPE: Duration = Duration::from_millis(100);
/// Durations counted to time one.
const COUNTED: u32 = 1_000_000;

/// Something that is read as long as it is held.
struct Scraper {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<usize>>,
}

impl Scraper {
    fn start(stack: &Stack) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let gateway = stack.gateway();
        let request = Request::new("GET", &gateway.setup.admin.to_string(), "/metrics")
            .header("authorization", &format!("Bearer {}", gateway.token()));
        let (address, stopped) = (gateway.setup.admin, Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut scraped = 0;
            while !stopped.load(Ordering::Relaxed) {
                assert_eq!(client::send(address, &request).status, 200);
                scraped += 1;
                thread::sleep(SCRAPE);
            }
            scraped
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().unwrap() > 0, "nothing was scraped");
        }
    }
}

/// Takes the access log out of what Envoy runs with, as an update of its listeners.
fn silence(stack: &Stack) {
    let run = stack.gateway().setup.run_dir();
    let file = run.join("xds/listeners.json");
    let mut listeners: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    listeners["version_info"] = "silent".into();
    for listener in listeners["resources"].as_array_mut().unwrap() {
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        manager.as_object_mut().unwrap().remove("access_log");
    }
    // Envoy notices what is renamed in this folder, and nothing else.
    let beside = run.join("silent.json");
    fs::write(&beside, listeners.to_string()).unwrap();
    fs::rename(&beside, &file).unwrap();
    // A listener that is changed in place keeps its own version in what Envoy shows; the file's is the new one.
    wait_until("Envoy has taken it", Duration::from_secs(30), || {
        let face = stack.gateway().setup.face;
        let dump = client::send(face, &Request::new("GET", &face.to_string(), "/config_dump"));
        dump.text().contains("\"silent\"")
    });
}

/// Nanoseconds of reading the clock twice and counting one duration.
fn count_one() -> f64 {
    let times = DecisionTimes::default();
    let begun = Instant::now();
    for _ in 0..COUNTED {
        let watch = Stopwatch::start();
        black_box(&times).record(Stage::Body, true, watch.elapsed());
    }
    let took = begun.elapsed().as_nanos() as f64 / f64::from(COUNTED);
    black_box(times.totals());
    took
}

/// Measures all of them in turns.
pub fn run(runtime: &tokio::runtime::Runtime, ground: &Ground, quick: bool) {
    let collector = Collector::start();
    let endpoint = collector.endpoint();
    let traced = |ratio: &str| {
        ground.gateway_with(&[("GATEWAY_OTLP_ENDPOINT", &endpoint), ("GATEWAY_TRACE_SAMPLE_RATIO", ratio)])
    };
    let stacks = [
        ("t0", "the gateway", ground.gateway()),
        ("t1", "without the access log", ground.gateway()),
        ("t2", "/metrics read every 100 ms", ground.gateway()),
        ("t3", "every request traced", traced("1")),
        ("t4", "one request in 100 traced", traced("0.01")),
        ("t5", "the gateway again", ground.gateway()),
    ];
    let authority = "127.0.0.1:38000";
    let mut rows: Vec<(Row, &Stack)> =
        stacks.iter().map(|(name, what, stack)| (Row::new(name, what, stack), stack)).collect();
    silence(&stacks[1].2);
    let (rounds, burst) = if quick { (2, BURST / 4) } else { (ROUNDS, BURST) };
    for (_, stack) in &rows {
        stack.wait_ready(|| make(Kind::Get, &ground.agent, ground, authority));
        let requests = (0..burst / 4).map(|_| make(Kind::Get, &ground.agent, ground, authority).bytes()).collect();
        runtime.block_on(load::send_all(stack.address, requests, CONNECTIONS));
    }
    let logged =
        |stack: &Stack| fs::metadata(stack.gateway().setup.run_dir().join("access.log")).map_or(0, |log| log.len());
    let silent = logged(&stacks[1].2);
    for round in 0..rounds {
        let requests: Vec<Vec<u8>> =
            (0..burst).map(|_| make(Kind::Get, &ground.agent, ground, authority).bytes()).collect();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.rotate_left(round % rows.len());
        for at in order {
            let (row, stack) = &mut rows[at];
            let scraper = (row.name == "t2").then(|| Scraper::start(stack));
            let before = Reading::take(&stack.processes);
            let sent = runtime.block_on(load::send_all(stack.address, requests.clone(), CONNECTIONS));
            row.add(sent, &Reading::take(&stack.processes).since(&before));
            drop(scraper);
        }
    }
    assert_eq!(logged(&stacks[1].2), silent, "a gateway without an access log writes none");
    let rows: Vec<Row> = rows.into_iter().map(|(row, stack)| row.finish(stack)).collect();
    crate::report::print(&rows, &[]);
    let spans = collector.spans().len();
    assert!(spans >= rounds * burst, "{spans} spans");
    println!();
    println!("{:<4} {:<32} {:>10} {:>14} {:>14}", "row", "beside t0", "requests/s", "CPU in total", "CPU of authz");
    let base = &rows[0];
    for row in &rows[1..] {
        println!(
            "{:<4} {:<32} {:>10.3} {:>14.3} {:>14.3}",
            row.name,
            row.what(),
            row.rate() / base.rate(),
            row.total() / base.total(),
            row.micros("authz") / base.micros("authz"),
        );
    }
    println!("     one duration counted, the clock read twice: {:.0} ns; spans at the collector: {spans}", count_one());
}
