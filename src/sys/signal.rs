//! Waiting to be told to stop.

use std::io;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// SIGHUP, which asks a process to read its configuration again. Registered when made.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Takes over SIGHUP for the rest of the process's life.
    pub fn install() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Returns at the next one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// SIGUSR2, which asks a supervisor to restart what it runs. Registered when made.
#[derive(Debug)]
pub struct RestartSignals(Signal);

impl RestartSignals {
    /// Takes over SIGUSR2 for the rest of the process's life.
    pub fn install() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::user_defined2())?))
    }

    /// Returns at the next one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// The signals that ask a process to end. Registered when made, so that none is missed in between.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes over SIGTERM and SIGINT for the rest of the process's life.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns at the next SIGTERM or SIGINT with its name. Call it again to wait for the second one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
