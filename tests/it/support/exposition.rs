//! The Prometheus text format (version 0.0.4), read as strictly as `promtool check metrics` does, with its rules for
//! names.

use std::collections::BTreeMap;
use std::collections::HashSet;

/// The samples of one name.
#[derive(Debug)]
pub struct Family {
    pub name: String,
    /// `counter`, `gauge` or `histogram`; nothing else is ours.
    pub kind: String,
    pub samples: Vec<Sample>,
}

/// One line.
#[derive(Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Family {
    /// The names a query may use.
    pub fn names(&self) -> Vec<String> {
        let of = |end: &str| format!("{}{end}", self.name);
        if self.kind == "histogram" { vec![of("_bucket"), of("_sum"), of("_count")] } else { vec![of("")] }
    }

    /// The names of all labels of its samples.
    pub fn labels(&self) -> HashSet<String> {
        self.samples.iter().flat_map(|sample| sample.labels.keys().cloned()).collect()
    }

    /// The value of the sample with exactly these labels.
    pub fn value(&self, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.iter().find(|sample| sample.labels == wanted).map(|sample| sample.value)
    }
}

/// Reads everything, and says what is wrong with it otherwise.
pub fn parse(text: &str) -> Result<Vec<Family>, String> {
    if !text.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let mut families: Vec<Family> = Vec::new();
    let mut lines = text.lines().peekable();
    let mut series = HashSet::new();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").ok_or_else(|| format!("not a HELP line: {line}"))?;
        let (name, meaning) = help.split_once(' ').ok_or_else(|| format!("no help: {line}"))?;
        if meaning.trim().is_empty() {
            return Err(format!("no help: {line}"));
        }
        let kind = lines
            .next()
            .and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")))
            .ok_or_else(|| format!("{name} has no TYPE right after its HELP"))?;
        check_name(name, kind)?;
        if families.iter().any(|family| family.name == name) {
            return Err(format!("{name} comes twice"));
        }
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let sample = sample(line).map_err(|error| format!("{error}: {line}"))?;
            let key = (sample.name.clone(), sample.labels.clone());
            if !series.insert(key) {
                return Err(format!("a series comes twice: {line}"));
            }
            samples.push(sample);
        }
        let family = Family { name: name.to_owned(), kind: kind.to_owned(), samples };
        check_samples(&family)?;
        families.push(family);
    }
    Ok(families)
}

fn is_name(text: &str, colon: bool) -> bool {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || colon && byte == b':';
    text.bytes().next().is_some_and(first) && text.bytes().all(|byte| first(byte) || byte.is_ascii_digit())
}

fn check_name(name: &str, kind: &str) -> Result<(), String> {
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    let problem = match kind {
        _ if !is_name(name, true) || name.contains(':') => "is no name of a metric",
        "counter" if !ends(&["_total"]) => "is a counter and does not end in _total",
        "gauge" | "histogram" if ends(&["_total", "_count", "_sum", "_bucket"]) => "ends like something else",
        "counter" | "gauge" | "histogram" => "",
        _ => "is of a type that is not ours",
    };
    // Base units, written out.
    let small = ["milliseconds", "microseconds", "nanoseconds", "ms", "us", "ns", "kilobytes", "megabytes", "kb", "mb"];
    let part = name.split('_').find(|part| small.contains(part) || ["minutes", "hours", "percent"].contains(part));
    match (problem, part) {
        ("", None) => Ok(()),
        ("", Some(unit)) => Err(format!("{name} is not in a base unit: {unit}")),
        (problem, _) => Err(format!("{name} {problem}")),
    }
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err("no name");
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without value")?;
            if !is_name(label, false) || label.starts_with("__") {
                return Err("a label that cannot be");
            }
            let (value, after) = quoted(after)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err("a label twice");
            }
            match (after.strip_prefix(','), after.strip_prefix('}')) {
                (Some(after), _) => rest = after,
                (None, Some(after)) => {
                    rest = after;
                    break;
                }
                (None, None) => return Err("labels that do not end"),
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no blank before the value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().map_err(|_| "no number")?,
    };
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match letters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, letter @ ('"' | '\\'))) => value.push(letter),
                Some(_) | None => return Err("an escape that cannot be"),
            },
            letter => value.push(letter),
        }
    }
    Err("a value that does not end")
}

fn check_samples(family: &Family) -> Result<(), String> {
    let Family { name, kind, samples } = family;
    if samples.is_empty() {
        return Err(format!("{name} has no samples"));
    }
    let names: HashSet<_> = family.names().into_iter().collect();
    let sets: HashSet<Vec<&String>> = samples
        .iter()
        .map(|sample| sample.labels.keys().filter(|label| kind != "histogram" || *label != "le").collect())
        .collect();
    for sample in samples {
        if !names.contains(&sample.name) {
            return Err(format!("{} stands under {name}", sample.name));
        }
        if sample.labels.contains_key("le") != sample.name.ends_with("_bucket") {
            return Err(format!("{} and its label le", sample.name));
        }
        if kind != "gauge" && (sample.value < 0.0 || sample.value.is_nan()) {
            return Err(format!("{} counts {}", sample.name, sample.value));
        }
    }
    if sets.len() != 1 {
        return Err(format!("{name} has series with different labels"));
    }
    if kind == "histogram" { check_histogram(family) } else { Ok(()) }
}

/// A histogram's lines of one set of labels.
#[derive(Default)]
struct Buckets {
    /// Bound and count.
    counts: Vec<(f64, f64)>,
    sums: usize,
    count: Option<f64>,
}

/// Each series has rising bounds and counts, a last bucket without bound, and a count that is its.
fn check_histogram(family: &Family) -> Result<(), String> {
    let mut series: BTreeMap<BTreeMap<String, String>, Buckets> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        let entry = series.entry(labels).or_default();
        match bound.as_deref() {
            Some("+Inf") => entry.counts.push((f64::INFINITY, sample.value)),
            Some(bound) => {
                entry.counts.push((bound.parse().map_err(|_| format!("{bound} is no bound"))?, sample.value))
            }
            None if sample.name.ends_with("_sum") => entry.sums += 1,
            None => entry.count = Some(sample.value),
        }
    }
    for (labels, Buckets { counts: buckets, sums, count }) in series {
        let rising = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let last = buckets.last().filter(|(bound, _)| bound.is_infinite()).map(|(_, count)| *count);
        if !rising || last.is_none() || last != count || sums != 1 {
            return Err(format!("the buckets of {} {labels:?} do not fit: {buckets:?}", family.name));
        }
    }
    Ok(())
}

#[test]
fn what_promtool_refuses_is_refused() {
    let good = "# HELP a_total Help\n# TYPE a_total counter\na_total{b=\"c\\\"\"} 1\n";
    assert_eq!(parse(good).unwrap()[0].value(&[("b", "c\"")]), Some(1.0));
    for bad in [
        "a_total 1\n",
        "# HELP a_total Help\n# TYPE a_total counter\na_total 1",
        "# HELP a_total \n# TYPE a_total counter\na_total 1\n",
        "# HELP a_total Help\na_total 1\n",
        "# HELP a Help\n# TYPE a counter\na 1\n",
        "# HELP a_total Help\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a_ms Help\n# TYPE a_ms gauge\na_ms 1\n",
        "# HELP a_total Help\n# TYPE a_total counter\na_total 1\na_total 1\n",
        "# HELP a_total Help\n# TYPE a_total counter\na_total{b=\"c\"} 1\na_total{d=\"c\"} 1\n",
        "# HELP a_total Help\n# TYPE a_total counter\na_total{b=\"c} 1\n",
        "# HELP a_total Help\n# TYPE a_total counter\na_total -1\n",
        "# HELP a_total Help\n# TYPE a_total counter\nb_total 1\n",
        "# HELP a_total Help\n# TYPE a_total counter\na_total x\n",
        "# HELP h Help\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
        "# HELP h Help\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n",
        "# HELP h Help\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 2\n",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
