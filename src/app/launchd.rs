//! Property lists for launchd: a pure function from what is to run to the text of its file, as XML.
//!
//! The keys are those of launchd.plist(5). Values are escaped; nothing secret stands in one.

use std::path::Path;

/// The label of the gateway's agent.
pub const LABEL: &str = "id.sigilum.gateway";
/// How long a job that ended waits before it starts again, in seconds.
const THROTTLE: u64 = 5;
/// What a supervisor may take from SIGTERM to SIGKILL at the least, in seconds.
const EXIT_TIMEOUT: u64 = 45;
/// What it takes beyond its drain, in seconds.
const STOP_GRACE: u64 = 40;
/// `0077` in decimal, as a property list has it.
const UMASK: u32 = 0o077;

/// What a job runs.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Its name.
    pub label: &'a str,
    /// The program: an absolute path.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
    /// Variables: name and value.
    pub environment: &'a [(String, String)],
    /// Where what it prints goes: an absolute path.
    pub log: &'a Path,
    /// How long requests in flight have, in seconds.
    pub drain_seconds: u64,
}

/// What can stand in no property list of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// A character that XML has no way to say.
    #[error("{0:?} cannot stand in a property list: it holds a control character")]
    Control(String),
    /// Not from the root on, or not UTF-8.
    #[error("{0:?} is no absolute path")]
    Path(String),
}

/// The text of the job's file.
pub fn render(job: &Job<'_>) -> Result<String, JobError> {
    let exit_timeout = job.drain_seconds.saturating_add(STOP_GRACE).max(EXIT_TIMEOUT);
    let (program, log) = (path(job.program)?, path(job.log)?);
    let mut lines = vec![
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned(),
        "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">"
            .to_owned(),
        "<plist version=\"1.0\">".to_owned(),
        "<dict>".to_owned(),
    ];
    let mut put = |key: &str, value: String| lines.extend([format!("\t<key>{key}</key>"), value]);
    put("Label", string(job.label, 1)?);
    let mut words = vec![string(program, 2)?];
    for argument in job.arguments {
        words.push(string(argument, 2)?);
    }
    put("ProgramArguments", format!("\t<array>\n{}\n\t</array>", words.join("\n")));
    let mut variables = Vec::new();
    for (name, value) in job.environment {
        variables.push(format!("\t\t<key>{}</key>\n{}", escaped(name)?, string(value, 2)?));
    }
    if !variables.is_empty() {
        put("EnvironmentVariables", format!("\t<dict>\n{}\n\t</dict>", variables.join("\n")));
    }
    put("RunAtLoad", "\t<true/>".to_owned());
    put("KeepAlive", "\t<true/>".to_owned());
    put("ThrottleInterval", format!("\t<integer>{THROTTLE}</integer>"));
    put("ExitTimeOut", format!("\t<integer>{exit_timeout}</integer>"));
    put("Umask", format!("\t<integer>{UMASK}</integer>"));
    let no_core = "\t<dict>\n\t\t<key>Core</key>\n\t\t<integer>0</integer>\n\t</dict>";
    put("HardResourceLimits", no_core.to_owned());
    put("StandardOutPath", string(log, 1)?);
    put("StandardErrorPath", string(log, 1)?);
    lines.extend(["</dict>", "</plist>", ""].map(str::to_owned));
    Ok(lines.join("\n"))
}

fn path(path: &Path) -> Result<&str, JobError> {
    let text = path.to_str().filter(|_| path.is_absolute());
    text.ok_or_else(|| JobError::Path(path.display().to_string()))
}

fn string(text: &str, depth: usize) -> Result<String, JobError> {
    Ok(format!("{}<string>{}</string>", "\t".repeat(depth), escaped(text)?))
}

fn escaped(text: &str) -> Result<String, JobError> {
    if text.chars().any(|letter| letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}')) {
        return Err(JobError::Control(text.to_owned()));
    }
    Ok(text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "test code may panic")]

    use std::process::Command;

    use super::*;

    fn job(arguments: &[String], environment: &[(String, String)]) -> Result<String, JobError> {
        render(&Job {
            label: LABEL,
            program: Path::new("/usr/local/bin/sigilum"),
            arguments,
            environment,
            log: Path::new("/Users/me/Library/Logs/sigilum-gateway.log"),
            drain_seconds: 15,
        })
    }

    /// What Apple's format means to two other readers of it, as JSON: libplist turns it into the binary form, and Python
    /// reads that.
    fn read(text: &str) -> serde_json::Value {
        let folder = tempfile::tempdir().unwrap();
        let (file, binary) = (folder.path().join("job.plist"), folder.path().join("job.bin"));
        std::fs::write(&file, text).unwrap();
        let output = Command::new("plistutil").args(["-f", "bin", "-i"]).arg(&file).arg("-o").arg(&binary).output();
        let output = output.unwrap_or_else(|error| {
            panic!("plistutil: {error}. This test needs it: apt-get install libplist-utils");
        });
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
        let script = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
        let output = Command::new("python3").args(["-c", script]).arg(&binary).output().unwrap();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[test]
    fn another_reader_finds_what_was_meant() {
        let arguments = ["gateway", "start", "--home", "/a b/<c>&\"d\"'e'", ""].map(str::to_owned);
        let environment = [("A".to_owned(), "b & <c>".to_owned())];
        let read = read(&job(&arguments, &environment).unwrap());
        let words: Vec<_> =
            read["ProgramArguments"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(words[0], "/usr/local/bin/sigilum");
        assert_eq!(words[1..], arguments);
        assert_eq!(read["EnvironmentVariables"]["A"], "b & <c>");
        assert_eq!((&read["Label"], &read["KeepAlive"]), (&LABEL.into(), &true.into()));
        assert_eq!((&read["ThrottleInterval"], &read["ExitTimeOut"]), (&5.into(), &55.into()));
        assert_eq!((&read["Umask"], &read["HardResourceLimits"]["Core"]), (&63.into(), &0.into()));
    }

    #[test]
    fn what_xml_cannot_say_and_what_is_relative_is_refused() {
        for bad in ["a\nb", "a\u{0}", "\u{1b}[m"] {
            assert_eq!(job(&[bad.to_owned()], &[]), Err(JobError::Control(bad.to_owned())));
            assert!(matches!(job(&[], &[("A".to_owned(), bad.to_owned())]), Err(JobError::Control(_))));
        }
        let program = Path::new("sigilum");
        let job =
            Job { label: LABEL, program, arguments: &[], environment: &[], log: Path::new("/l"), drain_seconds: 0 };
        assert_eq!(render(&job), Err(JobError::Path("sigilum".to_owned())));
    }
}
