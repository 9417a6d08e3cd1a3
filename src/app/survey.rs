//! What is on this machine of a gateway: listeners of its ports, units, processes. Looks, and changes nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::net::TcpStream;

use crate::app::unit_file;
use crate::sys::local_http;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::ExchangeError;
use crate::sys::local_http::exchange;
use crate::sys::process;
use crate::sys::process::PortHolder;

/// How long a listener of this machine may take to accept.
const ACCEPT: Duration = Duration::from_millis(200);

/// Somebody listens on this address; who, where the system tells. Probably one of `near`.
pub async fn listener(address: SocketAddr, near: &[i32]) -> Option<Option<PortHolder>> {
    let connected = tokio::time::timeout(ACCEPT, TcpStream::connect(local_http::reachable(address))).await;
    matches!(connected, Ok(Ok(_))).then(|| process::port_holder_near(address.port(), near))
}

/// Status and body of a GET on the port of agents, or why there is none.
pub async fn get(address: SocketAddr, path: &str, patience: Duration) -> Result<(u16, Bytes), ExchangeError> {
    let endpoint = Endpoint::Tcp(local_http::reachable(address));
    let answer = exchange(&endpoint, Request::get(path), Bytes::new(), patience).await?;
    Ok((answer.status, answer.body))
}

/// A unit's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFile {
    /// Its name, such as `sigilum-gateway.service`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is of the kind an older gateway installed, whose processes outlive it.
    pub legacy: bool,
}

/// Units in these folders whose name or command is ours, by name. A folder that cannot be read holds none.
pub fn units(folders: &[PathBuf]) -> Vec<UnitFile> {
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_unit = path.extension().is_some_and(|kind| kind == "service" || kind == "plist");
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
            let Some(text) = Some(&path).filter(|_| is_unit).and_then(|path| read(path)) else { continue };
            let started = text.lines().filter(|line| line.trim_start().starts_with("ExecStart")).collect::<String>();
            if name.contains("sigilum") || started.contains("sigilum") || text.contains("<string>sigilum") {
                found.push(UnitFile { legacy: text.contains("KillMode=process"), name, path });
            }
        }
    }
    found.sort_by(|one, other| (&one.name, &one.path).cmp(&(&other.name, &other.path)));
    // The same folder may go by two names.
    found.dedup();
    found
}

fn read(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    (found.is_file() && found.len() <= unit_file::MAX_BYTES).then(|| fs::read_to_string(path).ok())?
}

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrayProcess {
    /// Its id.
    pub pid: i32,
    /// Its program, without arguments.
    pub program: String,
    /// What it does, in a word or two: `envoy`, `gateway start`, …
    pub role: String,
}

/// Processes that are an Envoy or a part of a gateway, but for `known` ones. Nothing where the system has no `/proc`.
pub fn stray_processes(known: &[i32]) -> Vec<StrayProcess> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if known.contains(&pid) {
            continue;
        }
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        if let Some((program, role)) = role(&line) {
            found.push(StrayProcess { pid, program, role });
        }
    }
    found.sort_by_key(|process| process.pid);
    found
}

/// What a command line, its arguments ended by zeros, is of a gateway; nothing of any other program. Arguments are not
/// repeated: they may hold secrets of others.
fn role(line: &[u8]) -> Option<(String, String)> {
    let mut words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let program = words.next()?;
    let name = program.rsplit('/').next().unwrap_or_default();
    let role = match name {
        "envoy" => "envoy".to_owned(),
        "sigilum-gateway" => "an older gateway".to_owned(),
        "sigilum" => {
            let rest: Vec<_> = words.collect();
            let at = rest.iter().position(|word| word == "gateway")?;
            let part = rest.get(at.saturating_add(1)).map(String::as_str)?;
            if !["start", "run", "admin", "authz", "pair"].contains(&part) {
                return None;
            }
            format!("gateway {part}")
        }
        _ => return None,
    };
    Some((name.to_owned(), role))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic, and writes its files")]

    use super::*;

    #[test]
    fn parts_of_a_gateway_are_known_by_their_command_and_nothing_else_of_it_is_told() {
        let told = |words: &[&str]| role(words.join("\0").as_bytes());
        let pair = |name: &str, role: &str| Some((name.to_owned(), role.to_owned()));
        assert_eq!(told(&["/usr/bin/envoy", "-c", "x"]), pair("envoy", "envoy"));
        assert_eq!(
            told(&["sigilum", "--home", "/x", "gateway", "start", "--token=canary"]),
            pair("sigilum", "gateway start")
        );
        assert_eq!(told(&["/opt/sigilum-gateway", ""]), pair("sigilum-gateway", "an older gateway"));
        for other in [&["sigilum", "gateway", "status"][..], &["sigilum", "api"], &["bash", "envoy"], &[""]] {
            assert_eq!(told(other), None, "{other:?}");
        }
    }

    #[test]
    fn units_are_found_by_name_or_command() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("sigilum-old.service", "[Service]\nExecStart=/usr/bin/x\nKillMode=process\n");
        write("custom.service", "[Service]\nExecStart=/opt/sigilum gateway start\n");
        write("other.service", "[Service]\nExecStart=/usr/bin/nginx\n# sigilum\n");
        write("sigilum.txt", "");
        let folders = [folder.path().to_owned(), folder.path().join("absent"), folder.path().to_owned()];
        let found: Vec<_> = units(&folders).into_iter().map(|unit| (unit.name, unit.legacy)).collect();
        assert_eq!(found, [("custom.service".to_owned(), false), ("sigilum-old.service".to_owned(), true)]);
    }

    #[tokio::test]
    async fn a_port_is_busy_while_somebody_listens() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert!(listener(address, &[]).await.is_some());
        drop(socket);
        assert_eq!(listener(address, &[]).await, None);
    }
}
