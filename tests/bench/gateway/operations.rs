//! What an operator waits for: the commands that look, a start, and a restart with and without hand-off; and how long
//! agents are without an answer meanwhile.

use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::report::verdict;
use crate::stacks::Ground;
use crate::stacks::TARGET;
use crate::support::client;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;

/// How often each command is run.
const COMMANDS: usize = 20;
/// How often the gateway is started, and restarted in each way.
const STARTS: usize = 6;
/// Between two looks at something that is waited for, and between two requests of an agent.
const STEP: Duration = Duration::from_millis(2);

/// A command that looks, and how long it may take on two processors.
const LOOKING: [(&str, &[&str], f64); 3] = [
    ("gateway status", &["gateway", "status", "--json"], 300.0),
    ("doctor", &["doctor", "--json"], 2000.0),
    ("gateway probe", &["gateway", "probe", "--json"], 1000.0),
];

/// Durations of one thing, in milliseconds.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1000.0);
        self.0.sort_by(f64::total_cmp);
    }

    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    fn print(&self, what: &str) {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        println!("{what:<48} {:>9.0} {least:>9.0} {most:>9.0} {:>6}", self.median(), self.0.len());
    }
}

/// Runs a command that must end with 0 and print one JSON document.
fn run(mut command: Command) -> (Duration, Value) {
    let begun = Instant::now();
    let output = command.output().unwrap();
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}{}", output.status, String::from_utf8_lossy(&output.stdout));
    (took, serde_json::from_slice(&output.stdout).unwrap())
}

/// From the first byte of the program to its word that it is ready, in folders that a gateway has used before.
fn start(ground: &Ground) -> Duration {
    let setup = Setup::new().env("ENVOY_BIN", ground.envoy.to_str().unwrap());
    setup.begin_journal();
    setup.write_yaml();
    let begun = Instant::now();
    let running = Running::spawn_in(setup.command(&["gateway", "start"]), Some(setup.root.path()));
    while !running.said().lines().any(|line| line.starts_with("ready:")) {
        assert!(begun.elapsed() < LIMIT, "not ready: {}", running.said());
        thread::sleep(STEP);
    }
    let took = begun.elapsed();
    let gateway = Gateway::of(setup, running);
    assert!(gateway.healthy(), "{}", gateway.said());
    took
}

/// A restart: how long the command took, and the longest time for which an agent had no answer of its provider.
fn restart(gateway: &Gateway, options: &[&str]) -> (Duration, Duration) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let agent = scope.spawn(|| {
            let (mut last, mut gap) = (Instant::now(), Duration::ZERO);
            while !stop.load(Ordering::Acquire) {
                let request = gateway.agent().get(&gateway.authority(), TARGET);
                if client::try_send(gateway.setup.ingress, &request).is_ok_and(|answer| answer.status == 200) {
                    gap = gap.max(last.elapsed());
                    last = Instant::now();
                }
                thread::sleep(STEP);
            }
            gap.max(last.elapsed())
        });
        let arguments = [&["gateway", "restart", "--json"], options].concat();
        let (took, report) = run(gateway.setup.command(&arguments));
        assert_eq!(report["result"], "healthy", "{report}");
        stop.store(true, Ordering::Release);
        (took, agent.join().unwrap())
    })
}

/// Measures all of them.
pub fn run_all(ground: &Ground, quick: bool) {
    let (commands, starts) = if quick { (3, 1) } else { (COMMANDS, STARTS) };
    let stack = ground.gateway();
    let gateway = stack.gateway();
    println!();
    println!("{:<48} {:>9} {:>9} {:>9} {:>6}", "ms", "median", "least", "most", "times");
    let mut verdicts = Vec::new();
    for (what, arguments, limit) in LOOKING {
        let mut times = Times::default();
        for _ in 0..commands {
            let (took, report) = run(gateway.setup.command(arguments));
            assert_eq!(report["ok"], true, "{what} of a healthy gateway: {report:#}");
            times.add(took);
        }
        times.print(what);
        verdicts.push((what, times.median(), limit));
    }
    let mut ready = Times::default();
    for _ in 0..starts {
        ready.add(start(ground));
    }
    ready.print("gateway start, until it says that it is ready");
    for (what, options) in [("gateway restart", &[][..]), ("gateway restart --handoff", &["--handoff"])] {
        let (mut command, mut gap) = (Times::default(), Times::default());
        for _ in 0..starts {
            let (took, without) = restart(gateway, options);
            command.add(took);
            gap.add(without);
        }
        command.print(what);
        gap.print("  longest without an answer to an agent");
    }
    println!();
    for (what, found, limit) in verdicts {
        verdict(&format!("{what} (median)"), found, limit, "ms", true);
    }
}
