//! `up --demo` in an empty home, tried with the commands that come with it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client;
use crate::support::client::Request;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::refused;
use crate::support::process;
use crate::support::process::wait_until;
use crate::support::stack::DEMO;
use crate::support::stack::LONG;
use crate::support::stack::NATIVE;
use crate::support::stack::Stack;
use crate::support::stack::end;
use crate::support::stack::pong;

/// How soon a revocation must be enforced; usually a fraction of a second.
const SOON: Duration = Duration::from_secs(5);
/// How soon the native service finds out: it reads every ten seconds.
const NATIVE_SOON: Duration = Duration::from_secs(25);

#[test]
fn an_empty_home_becomes_a_stack_whose_approvals_are_enforced() {
    let stack = Stack::new();
    let running = stack.start();
    for address in [stack.api, stack.setup.ingress, stack.setup.admin, stack.native, stack.upstream] {
        assert!(running.said().contains(&format!("http://{address}")), "{address} is not shown:\n{}", running.said());
    }
    assert!(pong(&stack.ping()) && pong(&stack.ping_native()), "{}", running.said());

    // The seed's token was made for this run and is found without being told.
    let said = stack.done(&["agent-simulator"]);
    assert_eq!(said.lines().filter(|line| line.starts_with("PASS  ")).count(), 6, "{said}");
    assert!(said.ends_with("Summary: 6 passed, 0 failed\n"), "{said}");

    // A test of the demo's connection, which names no path, finds it well.
    stack.done(&["connection", "test", DEMO]);

    // Nobody reaches the upstream past the gateway.
    assert_eq!(client::send(stack.upstream, &Request::new("GET", "demo", "/v1/balance")).status, 401);

    stack.done(&["claim", "revoke", &stack.claim(DEMO)]);
    wait_until("the revocation is enforced by the gateway", SOON, || {
        let output = stack.ping();
        String::from_utf8_lossy(&output.stdout).contains("AUTH_CLAIM_REQUIRED")
    });
    stack.done(&["claim", "revoke", &stack.claim(NATIVE)]);
    wait_until("the revocation is enforced by the native service", NATIVE_SOON, || {
        String::from_utf8_lossy(&stack.ping_native().stdout).contains("Unauthorized")
    });

    let keys = ["sigilum-gateway", NATIVE, DEMO].map(|slug| stack.workspace().join(format!("service-api-key-{slug}")));
    for key in &keys {
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600, "{}", key.display());
        let key = fs::read_to_string(key).unwrap();
        assert!(!running.said().contains(key.trim()), "a service key was printed");
    }
    let token = fs::read_to_string(stack.api_data().join("test-seed-token")).unwrap();
    assert!(token.starts_with("seed_") && token.len() == 5 + 48 && !running.said().contains(&token), "{token}");
    end(running);
    assert!(!stack.api_data().join("test-seed-token").exists(), "the token outlived the run");
}

#[test]
fn without_a_namespace_the_stack_has_one_and_later_commands_use_it() {
    let stack = Stack::new();
    let mut running = Running::spawn_in(stack.command(&["up"]), Some(stack.setup.root.path()));
    wait_until("the stack is up", LONG, || {
        assert!(running.ended().is_none(), "{}", running.said());
        running.said().contains("claim list")
    });
    assert!(running.said().contains("namespace: johndee"), "{}", running.said());
    assert_eq!(stack.done(&["claim", "list"]), "No claims for namespace \"johndee\".\n");
    end(running);
}

#[test]
fn a_second_start_changes_nothing_and_a_second_stack_is_refused() {
    let stack = Stack::new();
    let running = stack.start();
    let (claims, services) = (stack.claims(), stack.done(&["service", "list", "--json"]));
    let key = fs::read(stack.workspace().join(format!("service-api-key-{DEMO}"))).unwrap();

    let second = refused(stack.command(&["up", "--demo"]));
    assert_eq!(second.code, Some(78), "{}", second.said);
    assert!(second.said.contains(&running.pid().to_string()), "the first is not named:\n{}", second.said);
    assert!(pong(&stack.ping()), "the first goes on");
    end(running);

    let running = stack.start();
    assert_eq!(stack.claims(), claims);
    assert_eq!(stack.done(&["service", "list", "--json"]), services);
    assert_eq!(fs::read(stack.workspace().join(format!("service-api-key-{DEMO}"))).unwrap(), key);
    assert!(pong(&stack.ping()) && pong(&stack.ping_native()));

    // A home that was lost has other keys; the services are the same, and the demo's connection is given the new one.
    end(running);
    for slug in ["sigilum-gateway", NATIVE, DEMO] {
        fs::remove_file(stack.workspace().join(format!("service-api-key-{slug}"))).unwrap();
    }
    fs::remove_file(stack.workspace().join("demo-upstream-key")).unwrap();
    let running = stack.start();
    assert!(pong(&stack.ping()) && pong(&stack.ping_native()), "{}", running.said());
    end(running);
}

#[test]
fn a_stack_that_is_stopped_while_it_is_set_up_has_not_failed() {
    let stack = Stack::new();
    let mut running = Running::spawn_in(stack.command(&["up", "--demo"]), Some(stack.setup.root.path()));
    wait_until("the gateway stands and the demo does not", LONG, || running.said().contains("ready:"));
    running.signal(Signal::INT);
    let status = running.wait(LIMIT);
    assert!(status.success(), "{status}: {}", running.said());
    assert!(!running.said().contains("could not be set up"), "{}", running.said());
}

#[test]
fn of_two_stacks_that_start_at_once_the_second_is_told_of_the_first() {
    let stack = Stack::new();
    // What both would make is there.
    end(stack.start());
    let start = || Running::spawn_in(stack.command(&["up", "--demo"]), Some(stack.setup.root.path()));
    let mut both = [start(), start()];
    wait_until("one has ended", LONG, || both.iter_mut().any(|running| running.ended().is_some()));
    let [one, other] = &mut both;
    let loser = if one.ended().is_some() { one } else { other };
    assert_eq!(loser.wait(LIMIT).code(), Some(78), "{}", loser.said());
    assert!(loser.said().contains("another gateway instance is already listening"), "{}", loser.said());
}

#[test]
fn a_killed_stack_leaves_nothing_behind_and_down_ends_a_running_one() {
    let stack = Stack::new();
    let running = stack.start();
    let children: Vec<_> = process::children(running.pid()).iter().map(|child| child.pid).collect();
    assert_eq!(children.len(), 3, "admin, authz and Envoy");
    running.signal(Signal::KILL);
    wait_until("its processes end with it", LIMIT, || children.iter().all(|child| !process::alive(*child)));

    let mut running = stack.start();
    let said = stack.done(&["down"]);
    assert!(running.wait(LIMIT).success());
    for line in
        ["[ok] gateway: stopped", "[ok] api: stopped", "[ok] native demo: stopped", "[ok] upstream demo: stopped"]
    {
        assert!(said.contains(line), "{line:?} is missing in:\n{said}");
    }
    assert!(said.ends_with("Sigilum local stack shutdown complete.\n"), "{said}");

    // Somebody else has a port now: named, left alone, and no failure.
    let other = TcpListener::bind(stack.api).unwrap();
    let said = stack.done(&["down"]);
    let line = said.lines().find(|line| line.starts_with("[warn] api:")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&format!("process {} ", std::process::id())), "{line}");
    assert!(said.contains("[ok] gateway: not running"), "{said}");
    let refused = refused(stack.command(&["up"]));
    assert_eq!(refused.code, Some(78), "{}", refused.said);
    assert!(refused.said.contains(&format!("port {} (the local API", stack.api.port())), "{}", refused.said);
    assert!(refused.said.contains(&std::process::id().to_string()), "{}", refused.said);
    drop(other);
}

#[test]
fn another_api_is_not_overlooked() {
    let stack = Stack::new();
    let mut command = stack.command(&["up", "--demo"]);
    command.env("SIGILUM_API_URL", "https://api.example.com");
    let refused = refused(command);
    assert_eq!(refused.code, Some(78), "{}", refused.said);
    assert!(refused.said.contains("https://api.example.com") && refused.said.contains("--no-api"), "{}", refused.said);
    assert!(!stack.workspace().exists(), "nothing may be made before the settings hold");
}

#[test]
fn the_end_to_end_tests_bring_their_own_stack_and_take_it_away() {
    let stack = Stack::new();
    let folders = stack.setup.root.path().join("tmp");
    fs::create_dir(&folders).unwrap();
    let mut command = stack.command(&["e2e-tests"]);
    command.env("TMPDIR", &folders);
    let mut running = Running::spawn_in(command, Some(stack.setup.root.path()));
    let status = running.wait(LONG);
    assert!(status.success(), "{status}: {}", running.said());
    assert!(running.said().contains("E2E simulator passed."), "{}", running.said());
    assert!(TcpListener::bind(stack.setup.ingress).is_ok() && TcpListener::bind(stack.api).is_ok(), "it still runs");
    assert!(!stack.workspace().exists(), "the person's own folders were touched");
    let left: Vec<_> = fs::read_dir(&folders).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(left.len(), 1);
    let name = left[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("sigilum-demo-e2e-2"), "{name}");
    let mut kept: Vec<_> = fs::read_dir(&left[0]).unwrap().flatten().map(|entry| entry.file_name()).collect();
    kept.sort();
    assert_eq!(kept, ["gateway-logs", "up.log"], "keys and data are gone, logs stay");

    // Killed in the middle, it takes its stack along all the same.
    let mut command = stack.command(&["e2e-tests"]);
    command.env("TMPDIR", &folders);
    let running = Running::spawn_in(command, Some(stack.setup.root.path()));
    wait_until("the stack of its own begins", LIMIT, || !process::children(running.pid()).is_empty());
    let stack_pid = process::children(running.pid())[0].pid;
    wait_until("the stack has processes", LONG, || !process::children(stack_pid).is_empty());
    running.signal(Signal::KILL);
    wait_until("the stack ends with it", LIMIT, || !process::alive(stack_pid));
}

#[test]
fn the_end_to_end_tests_try_the_stack_that_runs_when_asked_to() {
    let stack = Stack::new();
    let running = stack.start();
    let mut command = stack.command(&["e2e-tests"]);
    command.env("SIGILUM_E2E_CLEAN_START", "false").stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("E2E simulator passed."));
    assert!(pong(&stack.ping()), "it goes on");
    end(running);

    // Half a stack is none.
    let api = TcpListener::bind(stack.api).unwrap();
    let answer = std::thread::spawn(move || {
        let (mut stream, _) = api.accept().unwrap();
        let mut head = [0_u8; 1024];
        let _ = std::io::Read::read(&mut stream, &mut head).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
    });
    let mut command = stack.command(&["e2e-tests"]);
    command.env("SIGILUM_E2E_CLEAN_START", "false");
    let half = refused(command);
    answer.join().unwrap();
    assert_eq!(half.code, Some(1), "{}", half.said);
    assert!(half.said.contains("half a stack"), "{}", half.said);
}
