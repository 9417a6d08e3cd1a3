//! The usage of a namespace for a picture of it: calls over time, and the services and subjects with most of them.

use rusqlite::Connection;
use rusqlite::named_params;

use crate::api::Api;
use crate::api::moment::iso;
use crate::api::problem::Problem;
use crate::domain::ids::Namespace;

/// Which calls, and how they are laid into steps of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where the first step begins, in Unix milliseconds.
    pub from_ms: i64,
    /// How long a step is, in milliseconds; at least 1.
    pub step_ms: i64,
    /// How many steps.
    pub steps: usize,
    /// Only at this service, by its slug.
    pub service: Option<String>,
    /// Only of this subject.
    pub subject: Option<String>,
    /// Most services and most subjects that are named.
    pub most: u32,
}

/// Calls, and how many of them succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// All of them.
    pub all: i64,
    /// Those the provider answered with success.
    pub good: i64,
}

/// What one service or one subject has of the calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Slug of the service, or the subject.
    pub name: String,
    /// Its calls.
    pub calls: Calls,
    /// When the last one was.
    pub last_used_at: String,
}

/// What is drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageChart {
    /// One entry per step of time, the earliest first.
    pub steps: Vec<Calls>,
    /// The services with most calls.
    pub services: Vec<Share>,
    /// The subjects with most calls.
    pub subjects: Vec<Share>,
}

/// Reads what is drawn of a namespace.
pub async fn chart(api: &Api, namespace: &Namespace, wanted: Wanted) -> Result<UsageChart, Problem> {
    let namespace = namespace.clone();
    api.db.survey(move |db| Ok(wanted.run(db, namespace.as_str())?)).await
}

impl Wanted {
    fn end_ms(&self) -> i64 {
        let steps = i64::try_from(self.steps).unwrap_or(i64::MAX);
        self.from_ms.saturating_add(self.step_ms.max(1).saturating_mul(steps))
    }

    fn run(&self, db: &Connection, namespace: &str) -> Result<UsageChart, rusqlite::Error> {
        Ok(UsageChart {
            steps: self.steps(db, namespace)?,
            services: self.shares(db, namespace, "service")?,
            subjects: self.shares(db, namespace, "subject")?,
        })
    }

    /// A filter that is not asked for is not in the statement: the planner can then use one that is.
    fn filters(&self) -> String {
        let service = if self.service.is_some() { "AND service = :service" } else { "AND :service IS NULL" };
        let subject = if self.subject.is_some() { "AND subject = :subject" } else { "AND :subject IS NULL" };
        format!("namespace = :namespace AND created_at_ms >= :from AND created_at_ms < :end {service} {subject}")
    }

    fn steps(&self, db: &Connection, namespace: &str) -> Result<Vec<Calls>, rusqlite::Error> {
        let mut steps = vec![Calls::default(); self.steps];
        let sql = format!(
            "SELECT (created_at_ms - :from) / :step, count(*), sum(outcome = 'success')
             FROM usage_events WHERE {} GROUP BY 1",
            self.filters()
        );
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query(named_params! {
            ":namespace": namespace, ":from": self.from_ms, ":end": self.end_ms(), ":step": self.step_ms.max(1),
            ":service": self.service, ":subject": self.subject,
        })?;
        while let Some(row) = rows.next()? {
            let step: i64 = row.get(0)?;
            if let Some(calls) = usize::try_from(step).ok().and_then(|step| steps.get_mut(step)) {
                *calls = Calls { all: row.get(1)?, good: row.get(2)? };
            }
        }
        Ok(steps)
    }

    /// `column` is one of ours, never a text from outside.
    fn shares(&self, db: &Connection, namespace: &str, column: &'static str) -> Result<Vec<Share>, rusqlite::Error> {
        let sql = format!(
            "SELECT {column}, count(*) AS calls, sum(outcome = 'success'), max(created_at_ms)
             FROM usage_events WHERE {} GROUP BY {column} ORDER BY calls DESC, {column} LIMIT :most",
            self.filters()
        );
        let mut statement = db.prepare_cached(&sql)?;
        let wanted = named_params! {
            ":namespace": namespace, ":from": self.from_ms, ":end": self.end_ms(),
            ":service": self.service, ":subject": self.subject, ":most": self.most,
        };
        let rows = statement.query_map(wanted, |row| {
            let calls = Calls { all: row.get(1)?, good: row.get(2)? };
            Ok(Share { name: row.get(0)?, calls, last_used_at: iso(row.get(3)?) })
        })?;
        rows.collect()
    }
}
