//! Gauges of what is looked at when somebody asks for the metrics: the ends of the state stream, the store, the
//! processes. All of a look is shown together, and what is gone is not shown any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::core::Describer as _;
use prometheus::proto;

use crate::sys::own_use::OwnUse;
use crate::telemetry::metrics::MAX_LABEL_VALUES;
use crate::telemetry::metrics::label_pair;
use crate::telemetry::metrics::options;

/// What a gauge is called, what it means, and the labels it has, if any.
type Described = (&'static str, &'static str, &'static [&'static str]);

const STATE_INFO: Described = ("state_info", "Always 1; the label names the epoch of the published state", &["epoch"]);
const ACKNOWLEDGED: Described =
    ("authz_acknowledged_version", "Version of the state an authz process has applied; 0 = none", &["node"]);
const LAG: Described =
    ("authz_lag_versions", "Versions of the published state an authz process has not applied yet", &["node"]);
const REPLAY_USED: Described =
    ("authz_replay_used_ratio", "Part of the room in its replay window an authz process has used up", &["node"]);
const CONDITION: Described = (
    "condition",
    "1 where a condition of readiness holds, 0 where it does not; what cannot be asked is not shown, nor what a drain keeps",
    &["condition", "requirement", "subject"],
);
const DATABASE: Described = ("store_database_bytes", "Size of the store's database file", &[]);
const WAL: Described = ("store_wal_bytes", "Size of the store's write-ahead log", &[]);
const FREE: Described = ("store_free_bytes", "Bytes of the database file that hold nothing", &[]);
const AUDIT_ENTRIES: Described = ("store_audit_entries", "Entries of the audit in the store", &[]);
const AUDIT_AGE: Described = ("store_audit_oldest_age_seconds", "Age of the oldest entry of the audit", &[]);
const RESIDENT: Described = ("process_resident_memory_bytes", "Memory a process of the gateway holds", &["process"]);
const OPEN: Described = ("process_open_fds", "Files and sockets a process of the gateway has open", &["process"]);
const MAX_OPEN: Described = ("process_max_fds", "Files and sockets it may have open", &["process"]);
const STARTED: Described = (
    "process_start_time_seconds",
    "When a process of the gateway started, in seconds since the Unix epoch",
    &["process"],
);
const ALL: [Described; 14] = [
    STATE_INFO,
    ACKNOWLEDGED,
    LAG,
    REPLAY_USED,
    CONDITION,
    DATABASE,
    WAL,
    FREE,
    AUDIT_ENTRIES,
    AUDIT_AGE,
    RESIDENT,
    OPEN,
    MAX_OPEN,
    STARTED,
];

/// What a look has found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Epoch of the published state; empty: nothing is shown.
    pub epoch: String,
    /// The connected authz processes.
    pub nodes: Vec<Node>,
    /// The conditions of readiness, as they were found last.
    pub conditions: Vec<Held>,
    /// The store; `None` where it could not be asked.
    pub store: Option<StoreStanding>,
    /// Our own process.
    pub admin: Process,
}

/// One connected authz process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// What it calls itself; two may do so alike.
    pub name: String,
    /// The version it has applied; 0 = none.
    pub acknowledged: u64,
    /// How many versions that is behind; all of them where it has none of this epoch.
    pub lag: u64,
    /// Part of the room in its replay window that is used up, 0 to 1; `None` where it has told of none.
    pub replay_used: Option<f64>,
    /// The process.
    pub process: Process,
}

/// A condition of readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Its type, e.g. `NonceStore`.
    pub condition: String,
    /// `required`: the gateway is not ready without; else `advisory`.
    pub requirement: &'static str,
    /// Which part of the gateway it is about.
    pub subject: String,
    /// Whether it holds.
    pub holds: bool,
}

/// A process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    /// Unix milliseconds of its start; 0 = not known.
    pub started_at_ms: u64,
    /// What it uses, where its system tells.
    pub uses: Option<OwnUse>,
}

/// The store's files.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StoreStanding {
    /// Bytes of the database file.
    pub database_bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Bytes of the database file that hold nothing.
    pub free_bytes: u64,
    /// Entries of the audit.
    pub audit_entries: u64,
    /// Age of the oldest of them, in seconds; 0 where there is none.
    pub audit_oldest_age: f64,
}

/// Shows the last look.
#[derive(Debug, Clone)]
pub(in crate::telemetry) struct StandingGauges {
    descs: Vec<Desc>,
    last: Arc<Mutex<Standing>>,
}

impl StandingGauges {
    pub(in crate::telemetry) fn new() -> Result<Self, prometheus::Error> {
        let described = |(name, help, labels): Described| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            options(name, help).variable_labels(labels).describe()
        };
        Ok(Self { descs: ALL.into_iter().map(described).collect::<Result<_, _>>()?, last: Arc::default() })
    }

    /// Shows this from now on, and nothing of what was shown before.
    pub(in crate::telemetry) fn show(&self, standing: Standing) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

impl Collector for StandingGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        families(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn families(standing: &Standing) -> Vec<proto::MetricFamily> {
    let nodes = named(&standing.nodes);
    let by_node = |value: fn(&Node) -> f64| nodes.iter().map(|(name, node)| (name.as_str(), value(node))).collect();
    let mut out = Vec::with_capacity(ALL.len());
    if !standing.epoch.is_empty() {
        out.push(family(STATE_INFO, vec![(standing.epoch.as_str(), 1.0)]));
    }
    out.push(family(ACKNOWLEDGED, by_node(|node| node.acknowledged as f64)));
    out.push(family(LAG, by_node(|node| node.lag as f64)));
    let used = nodes.iter().filter_map(|(name, node)| Some((name.as_str(), node.replay_used?))).collect();
    out.push(family(REPLAY_USED, used));
    let held = standing.conditions.iter().map(|held| {
        let values = [held.condition.as_str(), held.requirement, held.subject.as_str()];
        gauge(CONDITION, &values, f64::from(u8::from(held.holds)))
    });
    out.push(family_of(CONDITION, held.collect()));
    if let Some(store) = &standing.store {
        for (described, value) in [
            (DATABASE, store.database_bytes as f64),
            (WAL, store.wal_bytes as f64),
            (FREE, store.free_bytes as f64),
            (AUDIT_ENTRIES, store.audit_entries as f64),
            (AUDIT_AGE, store.audit_oldest_age),
        ] {
            out.push(family(described, vec![("", value)]));
        }
    }
    let processes: Vec<_> = std::iter::once(("admin", &standing.admin))
        .chain(nodes.iter().map(|(name, node)| (name.as_str(), &node.process)))
        .collect();
    let by_process = |value: &dyn Fn(&Process) -> Option<f64>| {
        processes.iter().filter_map(|(name, process)| Some((*name, value(process)?))).collect()
    };
    let of_use = |value: fn(OwnUse) -> u64| move |process: &Process| Some(value(process.uses?) as f64);
    out.push(family(RESIDENT, by_process(&of_use(|uses| uses.resident_bytes))));
    out.push(family(OPEN, by_process(&of_use(|uses| uses.open_files))));
    out.push(family(MAX_OPEN, by_process(&of_use(|uses| uses.max_open_files))));
    let started = |process: &Process| (process.started_at_ms > 0).then(|| process.started_at_ms as f64 / 1000.0);
    out.push(family(STARTED, by_process(&started)));
    out.retain(|family| !family.get_metric().is_empty());
    out
}

/// The nodes that are farthest behind, each under a name of its own: two of the same name would be one series twice.
fn named(nodes: &[Node]) -> Vec<(String, &Node)> {
    let mut shown: Vec<_> = nodes.iter().collect();
    shown.sort_by_key(|node| std::cmp::Reverse(node.lag));
    let mut seen: HashMap<&str, usize> = HashMap::from([("admin", 1)]);
    let name = |node: &'_ Node, number: usize| match number {
        1 => node.name.clone(),
        number => format!("{}#{number}", node.name),
    };
    shown
        .into_iter()
        .take(MAX_LABEL_VALUES)
        .map(|node| {
            let number = seen.entry(node.name.as_str()).and_modify(|count| *count += 1).or_insert(1);
            (name(node, *number), node)
        })
        .collect()
}

/// A family whose gauges have one label, or none.
fn family(described: Described, values: Vec<(&str, f64)>) -> proto::MetricFamily {
    let metrics = values.into_iter().map(|(value_of_label, value)| gauge(described, &[value_of_label], value));
    family_of(described, metrics.collect())
}

fn gauge((_, _, labels): Described, values_of_labels: &[&str], value: f64) -> proto::Metric {
    let labels = labels.iter().zip(values_of_labels).map(|(name, value)| label_pair(name, value)).collect();
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    let mut metric = proto::Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

fn family_of((name, help, _): Described, metrics: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(format!("sigilum_gateway_{name}"));
    family.set_help(help.to_owned());
    family.set_field_type(proto::MetricType::GAUGE);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(standing: &Standing) -> String {
        let mut out = Vec::new();
        prometheus::Encoder::encode(&prometheus::TextEncoder::new(), &families(standing), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn node(name: &str, lag: u64) -> Node {
        Node { name: name.to_owned(), acknowledged: 7, lag, ..Node::default() }
    }

    #[test]
    fn nodes_of_the_same_name_are_told_apart() {
        let nodes = vec![node("authz-1", 0), node("authz-1", 3), node("admin", 0)];
        let text = text(&Standing { nodes, ..Standing::default() });
        for line in [
            "sigilum_gateway_authz_lag_versions{node=\"authz-1\"} 3",
            "sigilum_gateway_authz_lag_versions{node=\"authz-1#2\"} 0",
            "sigilum_gateway_authz_lag_versions{node=\"admin#2\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn of_many_nodes_those_behind_are_shown() {
        let nodes: Vec<_> = (0..200).map(|number| node(&format!("authz-{number}"), number)).collect();
        let text = text(&Standing { nodes, ..Standing::default() });
        let shown = text.lines().filter(|line| line.starts_with("sigilum_gateway_authz_lag_versions{")).count();
        assert_eq!(shown, MAX_LABEL_VALUES);
        assert!(text.contains("{node=\"authz-199\"} 199") && !text.contains("{node=\"authz-3\"}"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let text = text(&Standing::default());
        assert_eq!(text, "");
    }

    #[test]
    fn processes_show_what_they_use() {
        let uses = Some(OwnUse { resident_bytes: 1024, open_files: 9, max_open_files: 100 });
        let process = Process { started_at_ms: 1500, uses };
        let nodes = vec![Node { process, ..node("authz-1", 0) }];
        let admin = Process { started_at_ms: 1000, uses: None };
        let text = text(&Standing { nodes, admin, ..Standing::default() });
        for line in [
            "sigilum_gateway_process_resident_memory_bytes{process=\"authz-1\"} 1024",
            "sigilum_gateway_process_open_fds{process=\"authz-1\"} 9",
            "sigilum_gateway_process_max_fds{process=\"authz-1\"} 100",
            "sigilum_gateway_process_start_time_seconds{process=\"authz-1\"} 1.5",
            "sigilum_gateway_process_start_time_seconds{process=\"admin\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("bytes{process=\"admin\"}"), "{text}");
    }

    #[test]
    fn a_condition_is_shown_with_what_it_means() {
        let held = |condition: &str, requirement, holds| Held {
            condition: condition.to_owned(),
            requirement,
            subject: "authz".to_owned(),
            holds,
        };
        let conditions = vec![held("NonceStore", "required", true), held("StateCertificates", "advisory", false)];
        let text = text(&Standing { conditions, ..Standing::default() });
        for line in [
            "sigilum_gateway_condition{condition=\"NonceStore\",requirement=\"required\",subject=\"authz\"} 1",
            "sigilum_gateway_condition{condition=\"StateCertificates\",requirement=\"advisory\",subject=\"authz\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
