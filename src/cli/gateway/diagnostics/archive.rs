//! Files as one compressed archive: tar (POSIX ustar) within gzip (RFC 1952), made in memory.

use std::io;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::Builder;
use tar::EntryType;
use tar::Header;

use crate::domain::time::UnixSeconds;
use crate::sys::files;

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Its name below the archive's folder, in letters, digits, `.`, `-`, `_` and `/`.
    pub(super) name: String,
    /// What is in it.
    pub(super) content: Vec<u8>,
}

impl Part {
    /// A file of text.
    pub(super) fn text(name: &str, text: String) -> Self {
        Self { name: name.to_owned(), content: text.into_bytes() }
    }
}

/// Packs files into a folder of this name. Their owner has number 0 and no name: whose account made the archive is nobody's
/// business.
pub(super) fn pack<'a>(folder: &str, parts: impl Iterator<Item = &'a Part>, at: UnixSeconds) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for part in parts {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(files::PRIVATE_FILE);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(at.0);
        header.set_size(part.content.len() as u64);
        archive.append_data(&mut header, format!("{folder}/{}", part.name), part.content.as_slice())?;
    }
    archive.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn what_is_packed_comes_out_again_private_and_nobodys() {
        let parts = [Part::text("a.json", "{}\n".to_owned()), Part::text("units/user/b.service", "x".repeat(9000))];
        let packed = pack("folder", parts.iter(), UnixSeconds(1_771_610_666)).unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(packed.as_slice()));
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap()),
                (0o600, 0, 1_771_610_666)
            );
            assert_eq!(header.username().unwrap(), Some(""));
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            seen.push((name, content));
        }
        let expected = parts.iter().map(|part| (format!("folder/{}", part.name), part.content.clone()));
        assert_eq!(seen, expected.collect::<Vec<_>>());
    }
}
