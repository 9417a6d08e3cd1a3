//! A person at a terminal: lines that show while they are typed, and secrets that do not.

use std::io;
use std::io::BufRead as _;
use std::io::IsTerminal as _;
use std::io::Read as _;
use std::os::fd::BorrowedFd;

use rustix::stdio::stdin;
use rustix::termios::LocalModes;
use rustix::termios::OptionalActions;
use rustix::termios::SpecialCodeIndex;
use rustix::termios::Termios;
use rustix::termios::tcgetattr;
use rustix::termios::tcsetattr;
use zeroize::Zeroizing;

/// Longest answer to a question, in bytes: a word or two.
const MAX_ANSWER: u64 = 1024;

/// Whether a person can be asked: standard input is a terminal.
pub fn is_attended() -> bool {
    io::stdin().is_terminal()
}

/// One line as typed, without its end; `None` where the input has ended.
pub fn read_line() -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = io::stdin().lock().take(MAX_ANSWER).read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim().to_owned()))
}

/// One line of at most `limit` bytes that does not show while it is typed. `ask` is called when nothing shows any more.
///
/// `Interrupted` where the person gives up with Ctrl-C: that must come through here, because a signal would end the
/// process with the terminal still silent.
pub fn read_hidden(limit: usize, ask: impl FnOnce()) -> io::Result<Zeroizing<String>> {
    let silent = Silent::begin(stdin())?;
    ask();
    // Reserved at once: a text that grows leaves copies of its beginning behind.
    let mut line = Zeroizing::new(Vec::with_capacity(limit.saturating_add(1)));
    let ended = fill(&mut line, limit, || {
        let mut byte = [0_u8];
        Ok((rustix::io::read(stdin(), &mut byte)? == 1).then_some(byte[0]))
    });
    drop(silent);
    ended?;
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")),
    }
}

/// Takes bytes until the line ends, and obeys the keys a line editor of a terminal knows.
fn fill(line: &mut Vec<u8>, limit: usize, mut next: impl FnMut() -> io::Result<Option<u8>>) -> io::Result<()> {
    const INTERRUPT: u8 = 0x03;
    const END: u8 = 0x04;
    const BACKSPACE: [u8; 2] = [0x08, 0x7f];
    const KILL: u8 = 0x15;
    loop {
        match next()? {
            None | Some(b'\n' | b'\r') => return Ok(()),
            Some(END) if line.is_empty() => return Ok(()),
            Some(END) => {}
            Some(INTERRUPT) => return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            Some(key) if BACKSPACE.contains(&key) => {
                // A letter may have several bytes: those that continue one begin with the bits 10.
                while line.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {}
            }
            Some(KILL) => line.clear(),
            Some(_) if line.len() >= limit => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {limit} bytes")));
            }
            Some(byte) => line.push(byte),
        }
    }
}

/// A terminal that shows nothing, takes keys one by one and sends no signals, until dropped.
struct Silent<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn begin(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Drain, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // A terminal that went away needs nothing put back.
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn typed(keys: &[u8]) -> io::Result<String> {
        let mut keys = keys.iter().copied();
        let mut line = Vec::new();
        fill(&mut line, 8, || Ok(keys.next()))?;
        Ok(String::from_utf8(line).unwrap())
    }

    #[test]
    fn a_line_is_edited_as_on_every_terminal() {
        for (keys, line) in [
            (&b"secret\nrest"[..], "secret"),
            (b"secret\r", "secret"),
            (b"ended", "ended"),
            (b"", ""),
            (b"\x04x", ""),
            (b"a\x04b\n", "ab"),
            (b"ab\x7fc\n", "ac"),
            (b"\x7f\x08a\n", "a"),
            ("aé\x7fb\n".as_bytes(), "ab"),
            (b"wrong\x15right\n", "right"),
        ] {
            assert_eq!(typed(keys).unwrap(), line, "{keys:?}");
        }
        assert_eq!(typed(b"abc\x03").unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(typed(b"123456789\n").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
