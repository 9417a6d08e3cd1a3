//! The table, and whether the targets are met.

use std::time::Duration;

use crate::accounting::memory_kib;
use crate::load::Burst;
use crate::stacks::Stack;
use crate::verification::Isolated;

/// Everything measured of one row.
#[derive(Default)]
pub struct Row {
    pub name: &'static str,
    what: &'static str,
    names: Vec<&'static str>,
    elapsed: Duration,
    latencies: Vec<u32>,
    /// Nanoseconds per process and burst, with the number of requests of that burst.
    bursts: Vec<(usize, Vec<u64>)>,
    peaks: Vec<u64>,
}

impl Row {
    /// A row without measurements.
    pub fn new(name: &'static str, what: &'static str, stack: &Stack) -> Self {
        Self {
            name,
            what,
            names: stack.processes.iter().map(|process| process.name).collect(),
            elapsed: Duration::ZERO,
            latencies: Vec::new(),
            bursts: Vec::new(),
            peaks: Vec::new(),
        }
    }

    /// Adds one burst.
    pub fn add(&mut self, burst: Burst, nanos: &[u64]) {
        self.elapsed += burst.elapsed;
        self.bursts.push((burst.latencies.len(), nanos.to_vec()));
        self.latencies.extend(burst.latencies);
    }

    /// Sorts what is to be sorted and reads the peaks.
    pub fn finish(mut self, stack: &Stack) -> Self {
        self.latencies.sort_unstable();
        self.peaks = stack.processes.iter().map(|process| memory_kib(process.pid, "VmHWM")).collect();
        self
    }

    /// What is measured.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Hands the measurements over.
    pub fn take(&mut self) -> Self {
        let empty = Self { name: self.name, what: self.what, ..Self::default() };
        std::mem::replace(self, empty)
    }

    /// Milliseconds within which this part of the requests was answered.
    pub fn percentile(&self, part: f64) -> f64 {
        let at = (self.latencies.len() as f64 * part) as usize;
        f64::from(self.latencies.get(at.min(self.latencies.len() - 1)).copied().unwrap_or(0)) / 1000.0
    }

    /// Microseconds of processor time per request: the lower quartile of the bursts. What disturbs a burst
    /// on a shared machine only ever adds, in spells that last for several; all rows are read alike.
    pub fn micros(&self, process: &str) -> f64 {
        let Some(at) = self.names.iter().position(|name| *name == process) else { return 0.0 };
        self.quiet(|nanos| nanos[at])
    }

    /// The same for all processes of the stack: not the provider, not the generator.
    pub fn total(&self) -> f64 {
        let ours: Vec<usize> =
            (0..self.names.len()).filter(|at| !["provider", "generator"].contains(&self.names[*at])).collect();
        self.quiet(|nanos| ours.iter().map(|at| nanos[*at]).sum())
    }

    fn quiet(&self, part: impl Fn(&[u64]) -> u64) -> f64 {
        let mut each: Vec<f64> =
            self.bursts.iter().map(|(requests, nanos)| part(nanos) as f64 / *requests as f64 / 1000.0).collect();
        each.sort_by(f64::total_cmp);
        each.get(each.len() / 4).copied().unwrap_or(0.0)
    }

    /// Peak memory in MB.
    pub fn peak(&self, process: &str) -> f64 {
        let at = self.names.iter().position(|name| *name == process);
        at.map_or(0.0, |at| self.peaks[at] as f64 / 1024.0)
    }
}

/// Prints everything.
pub fn print(rows: &[Row], isolated: &[Isolated]) {
    println!();
    println!(
        "{:<4} {:<32} {:>8} {:>7} {:>7} | {:>7} {:>7} {:>6} {:>7} | {:>8} {:>9} | {:>8} {:>8}",
        "row",
        "",
        "req/s",
        "p50 ms",
        "p99 ms",
        "envoy",
        "authz",
        "admin",
        "total",
        "provider",
        "generator",
        "envoy",
        "authz"
    );
    println!("{:<4} {:<32} {:>24} | {:>30} | {:>18} | {:>17}", "", "", "", "CPU µs per request", "", "peak MB");
    for row in rows {
        println!(
            "{:<4} {:<32} {:>8.0} {:>7.2} {:>7.2} | {:>7.1} {:>7.1} {:>6.1} {:>7.1} | {:>8.1} {:>9.1} | {:>8.1} {:>8.1}",
            row.name,
            row.what,
            row.rate(),
            row.percentile(0.50),
            row.percentile(0.99),
            row.micros("envoy"),
            row.micros("authz"),
            row.micros("admin"),
            row.total(),
            row.micros("provider"),
            row.micros("generator"),
            row.peak("envoy"),
            row.peak("authz"),
        );
    }
    let Some(alone) = combine(isolated) else { return };
    println!();
    println!("(e)  one strict verification {:>6.1} µs (key decompressed each time)", alone.verification);
    println!(
        "     with the key held       {:>6.1} µs (ed25519-dalek's verify_strict itself {:.1} µs)",
        alone.held_key, alone.library
    );
    println!("     with the key's table    {:>6.1} µs (what the gateway does for approved keys in use)", alone.table);
    println!(
        "     one signature base      {:>6.1} µs (headers collected, parameters parsed, base written)",
        alone.base
    );
    println!("     one digest of 4 KiB     {:>6.1} µs", alone.digest);
    targets(rows, &alone);
}

/// The median round.
fn combine(isolated: &[Isolated]) -> Option<Isolated> {
    let median = |part: fn(&Isolated) -> f64| {
        let mut all: Vec<f64> = isolated.iter().map(part).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    Some(Isolated {
        verification: median(|one| one.verification)?,
        held_key: median(|one| one.held_key)?,
        table: median(|one| one.table)?,
        library: median(|one| one.library)?,
        base: median(|one| one.base)?,
        digest: median(|one| one.digest)?,
    })
}

/// Prints one target.
pub fn verdict(what: &str, found: f64, limit: f64, unit: &str, at_most: bool) {
    let met = if at_most { found <= limit } else { found >= limit };
    let sign = if at_most { '≤' } else { '≥' };
    println!("{:<4} {what}: {found:.1} {unit} {sign} {limit:.1} {unit}", if met { "met" } else { "MISS" });
}

fn targets(rows: &[Row], alone: &Isolated) {
    let row = |name: &str| rows.iter().find(|row| row.name == name);
    let (Some(allowing), Some(gateway)) = (row("b"), row("c")) else { return };
    println!();
    println!(
        "Targets, twice where they count a verification: (e) as any strict verifier does it, then by the key's table"
    );
    verdict("throughput of (c) ≥ 0.65 × (b)", gateway.rate(), 0.65 * allowing.rate(), "/s", false);
    for (path, verification) in [("(e)", alone.verification.min(alone.held_key)), ("table", alone.table)] {
        let total = allowing.total() + verification + 35.0;
        verdict(&format!("total CPU of (c) ≤ (b) + {path} + 35"), gateway.total(), total, "µs", true);
        let authz = allowing.micros("authz") + 1.15 * verification + 15.0;
        verdict(&format!("authz CPU of (c) ≤ (b) + 1.15 × {path} + 15"), gateway.micros("authz"), authz, "µs", true);
    }
    let (Some(allowing_body), Some(gateway_body)) = (row("b'"), row("c'")) else { return };
    // The second call with its body costs what (b') shows over (b).
    let limit = gateway.total() + (allowing_body.total() - allowing.total()) + alone.digest;
    verdict("total CPU of (c') ≤ (c) + one call and the digest", gateway_body.total(), limit, "µs", true);
}
