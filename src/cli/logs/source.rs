//! Where lines come from, and how far each stream was read.

use std::collections::VecDeque;

use serde_json::Map;
use serde_json::Value;

use crate::app::logs_api::LogsApi;
use crate::cli::gateway_api;
use crate::cli::logs::merge::Merge;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::domain::log_line::LogFilter;
use crate::domain::log_line::LogStream;
use crate::telemetry::log_reader;
use crate::telemetry::log_reader::LogPlaces;
use crate::telemetry::log_reader::MAX_BYTES;
use crate::telemetry::log_reader::MAX_LINES;
use crate::telemetry::log_reader::Page;
use crate::telemetry::log_reader::PageSize;
use crate::telemetry::log_reader::Start;

/// As much as a page may hold.
const WHOLE: PageSize = PageSize { lines: MAX_LINES, bytes: MAX_BYTES };
/// Pages taken of one stream before the others have their turn.
const PAGES_A_TURN: usize = 16;

/// The files, or the admin API.
pub(super) enum Source {
    /// Of this machine.
    Local(LogPlaces),
    /// Of a gateway anywhere.
    Remote(LogsApi),
}

impl Source {
    async fn page(
        &self,
        stream: LogStream,
        start: &Start,
        size: PageSize,
        filter: &LogFilter,
    ) -> Result<Page, CliError> {
        match self {
            Self::Local(places) => log_reader::read(places, stream, start, size, filter)
                .map_err(|error| CliError::new(Outcome::Failed, format!("{}: {error}", places.file(stream).display()))),
            Self::Remote(api) => {
                let mut page =
                    api.page(stream, start, size, filter).await.map_err(|error| gateway_api::failed(&error))?;
                page.lines.retain(|line| filter.matches(line));
                Ok(page)
            }
        }
    }
}

/// How far a stream was read.
pub(super) struct Follower {
    /// Which.
    pub(super) stream: LogStream,
    next: Start,
}

impl Follower {
    /// Adds the last lines that match; `true` where there were more of them than fit.
    pub(super) async fn begin(
        source: &Source,
        stream: LogStream,
        size: PageSize,
        filter: &mut LogFilter,
        merge: &mut Merge,
    ) -> Result<(Self, bool), CliError> {
        if filter.is_empty() {
            let page = source.page(stream, &Start::Newest, size, filter).await?;
            merge.add(stream, page.lines);
            return Ok((Self { stream, next: Start::After(page.next) }, page.truncated));
        }
        let (mut start, mut kept) = (Start::Oldest, Kept::new(size));
        loop {
            let page = source.page(stream, &start, WHOLE, filter).await?;
            start = Start::After(page.next);
            for line in page.lines {
                filter.learn(&line);
                kept.push(line);
            }
            if !page.more {
                break;
            }
        }
        merge.add(stream, kept.lines);
        Ok((Self { stream, next: start }, kept.left_out))
    }

    /// Adds what came since; `true` where the stream is read anew.
    pub(super) async fn next(
        &mut self,
        source: &Source,
        filter: &mut LogFilter,
        merge: &mut Merge,
    ) -> Result<bool, CliError> {
        let mut reset = false;
        for _ in 0..PAGES_A_TURN {
            let page = source.page(self.stream, &self.next, WHOLE, filter).await?;
            self.next = Start::After(page.next);
            reset |= page.reset;
            for line in &page.lines {
                filter.learn(line);
            }
            merge.add(self.stream, page.lines);
            if !page.more {
                break;
            }
        }
        Ok(reset)
    }
}

/// The last lines of those that pass by.
struct Kept {
    size: PageSize,
    lines: VecDeque<Map<String, Value>>,
    bytes: VecDeque<usize>,
    total: usize,
    left_out: bool,
}

impl Kept {
    const fn new(size: PageSize) -> Self {
        Self { size, lines: VecDeque::new(), bytes: VecDeque::new(), total: 0, left_out: false }
    }

    fn push(&mut self, line: Map<String, Value>) {
        let length = serde_json::to_string(&line).map_or(0, |text| text.len());
        self.lines.push_back(line);
        self.bytes.push_back(length);
        self.total = self.total.saturating_add(length);
        while self.lines.len() > self.size.lines || self.total > self.size.bytes && self.lines.len() > 1 {
            self.lines.pop_front();
            self.total = self.total.saturating_sub(self.bytes.pop_front().unwrap_or_default());
            self.left_out = true;
        }
    }
}
