use super::*;
use crate::authz::journal_header::MAGIC;
use crate::domain::ids::PublicKey;
use crate::domain::replay::AdmitRefusal;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::domain::time::UnixMillis;

const MAX_AGE: Duration = Duration::from_secs(300);
const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
const KEY: PublicKey = PublicKey::new([7; 32]);

fn open(folder: &Path, now: UnixSeconds) -> (Journal, ReplayWindow, Found) {
    Journal::open(folder, 1000, now).unwrap()
}

fn at(seconds: u64) -> UnixSeconds {
    UnixSeconds(NOW.0 + seconds)
}

/// Both clocks, which go as they should.
fn clocks(now: UnixSeconds) -> Now {
    Now { wall: UnixMillis(now.0 * 1000), monotonic: MonotonicMillis(now.0 * 1000) }
}

/// Admits and writes down, as the service does.
fn admit(
    journal: &mut Journal,
    window: &mut ReplayWindow,
    nonce: &str,
    created: UnixSeconds,
    now: UnixSeconds,
    max_age: Duration,
) -> Result<(), AdmitRefusal> {
    let entry = window.admit(&KEY, nonce, created, max_age, clocks(now))?;
    journal.append(&entry, max_age, now).unwrap();
    Ok(())
}

fn files(folder: &Path) -> Vec<u64> {
    segments(folder).unwrap()
}

/// A journal that has lived long enough for its first floor not to matter: begun at `NOW - 1000`.
fn settled(folder: &Path) -> (Journal, ReplayWindow) {
    let (journal, window, found) = open(folder, UnixSeconds(NOW.0 - 1000));
    assert_eq!(found, Found::Nothing);
    (journal, window)
}

#[test]
fn a_restart_forgets_nothing_and_refuses_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    drop((journal, window));
    let (mut journal, mut window, found) = open(folder.path(), at(1));
    assert_eq!(found, Found::Usable);
    assert_eq!(admit(&mut journal, &mut window, "one", NOW, at(1), MAX_AGE), Err(AdmitRefusal::Replayed));
    assert_eq!(admit(&mut journal, &mut window, "two", NOW, at(1), MAX_AGE), Ok(()));
    drop((journal, window));
    let (_, window, _) = open(folder.path(), at(2));
    assert_eq!(window.len(), 2);
}

#[test]
fn what_was_used_while_the_clock_was_ahead_is_known_for_its_whole_age_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "ahead", at(100), at(100), MAX_AGE).unwrap();
    drop((journal, window));
    // The clock is right again.
    let (mut journal, mut window, _) = open(folder.path(), at(2));
    admit(&mut journal, &mut window, "right", at(50), at(50), MAX_AGE).unwrap();
    assert_eq!(admit(&mut journal, &mut window, "ahead", at(100), at(399), MAX_AGE), Err(AdmitRefusal::Replayed));
}

#[test]
fn a_step_back_that_is_noticed_before_a_state_is_there_deletes_nothing_early() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "ahead", at(100), at(100), MAX_AGE).unwrap();
    journal.turn_back(at(2), Duration::ZERO);
    for minute in 0..5 {
        let now = at(20 + minute * 61);
        let entry = ReplayWindow::new(10, journal.hash_key).admit(&KEY, "more", now, MAX_AGE, clocks(now)).unwrap();
        journal.append(&entry, MAX_AGE, now).unwrap();
    }
    drop((journal, window));
    let (mut journal, mut window, _) = open(folder.path(), at(300));
    assert_eq!(admit(&mut journal, &mut window, "ahead", at(100), at(399), MAX_AGE), Err(AdmitRefusal::Replayed));
}

#[test]
fn without_a_journal_older_requests_are_refused_even_after_another_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window, found) = open(folder.path(), NOW);
    assert_eq!(found, Found::Nothing);
    assert_eq!(admit(&mut journal, &mut window, "old", NOW, at(1), MAX_AGE), Err(AdmitRefusal::Starting));
    for seconds in 0..9 {
        let signed_now = admit(&mut journal, &mut window, &seconds.to_string(), at(seconds), at(seconds), MAX_AGE);
        assert_eq!(signed_now.is_err(), window.is_starting(at(seconds)), "{seconds}");
    }
    assert_eq!(admit(&mut journal, &mut window, "new", at(6), at(8), MAX_AGE), Ok(()));
    drop((journal, window));
    let (mut journal, mut window, found) = open(folder.path(), at(9));
    assert_eq!(found, Found::Usable);
    assert_eq!(admit(&mut journal, &mut window, "old", NOW, at(9), MAX_AGE), Err(AdmitRefusal::Starting));
    assert_eq!(admit(&mut journal, &mut window, "new", at(6), at(9), MAX_AGE), Err(AdmitRefusal::Replayed));
}

#[test]
fn an_entry_that_was_cut_off_is_dropped_and_the_others_count() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    for nonce in ["one", "two", "three"] {
        admit(&mut journal, &mut window, nonce, NOW, NOW, MAX_AGE).unwrap();
    }
    let path = segment_path(folder.path(), journal.current.number);
    drop((journal, window));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 5).unwrap();
    let (mut journal, mut window, found) = open(folder.path(), at(1));
    assert_eq!((found, window.len()), (Found::Usable, 2));
    assert_eq!(admit(&mut journal, &mut window, "two", NOW, at(1), MAX_AGE), Err(AdmitRefusal::Replayed));
    assert_eq!(admit(&mut journal, &mut window, "three", NOW, at(1), MAX_AGE), Ok(()));
}

#[test]
fn a_segment_that_was_only_begun_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    let next = journal.current.number + 1;
    drop((journal, window));
    File::create(segment_path(folder.path(), next)).unwrap().write_all(&MAGIC).unwrap();
    for seconds in 1..4 {
        let (_, window, found) = open(folder.path(), at(seconds));
        assert_eq!((found, window.len()), (Found::Usable, 1));
    }
}

#[test]
fn damage_gaps_and_other_boots_make_it_unusable() {
    type Spoil = fn(&Path, &[u64]);
    let flip = |offset: usize| {
        move |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[offset] ^= 1;
            File::create(path).unwrap().write_all(&bytes).unwrap();
        }
    };
    let damage: [Spoil; 4] = [
        |folder, numbers| fs::remove_file(segment_path(folder, numbers[1])).unwrap(),
        |folder, numbers| fs::rename(segment_path(folder, numbers[0]), segment_path(folder, numbers[2] + 9)).unwrap(),
        |folder, numbers| {
            File::options().write(true).open(segment_path(folder, numbers[0])).unwrap().set_len(7).unwrap()
        },
        |folder, numbers| {
            let path = segment_path(folder, numbers[0]);
            let bytes: [u8; HEADER_BYTES] = fs::read(&path).unwrap()[..HEADER_BYTES].try_into().unwrap();
            let header = Header { boot: 42, ..Header::decode(&bytes).unwrap() };
            File::create(&path).unwrap().write_all(&header.encode()).unwrap();
        },
    ];
    let flips = (0..HEADER_BYTES).map(|offset| {
        Box::new(move |folder: &Path, numbers: &[u64]| flip(offset)(&segment_path(folder, numbers[0])))
            as Box<dyn Fn(&Path, &[u64])>
    });
    for (number, spoil) in
        damage.into_iter().map(|spoil| Box::new(spoil) as Box<dyn Fn(&Path, &[u64])>).chain(flips).enumerate()
    {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, mut window) = settled(folder.path());
        for minute in 0..3 {
            let now = at(minute * 61);
            admit(&mut journal, &mut window, "n", now, now, MAX_AGE).unwrap_or_default();
            admit(&mut journal, &mut window, &minute.to_string(), now, now, MAX_AGE).unwrap();
        }
        drop((journal, window));
        let numbers = files(folder.path());
        assert_eq!(numbers.len(), 3);
        spoil(folder.path(), &numbers);
        let now = at(200);
        let (mut journal, mut window, found) = open(folder.path(), now);
        assert!(matches!(found, Found::Unusable(_)), "spoil {number}");
        assert_eq!(admit(&mut journal, &mut window, "1", at(61), now, MAX_AGE), Err(AdmitRefusal::Starting));
        assert_eq!(files(folder.path()).len(), 1);
    }
}

#[test]
fn expired_segments_are_deleted_and_live_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    for minute in 0..20_u64 {
        let now = at(minute * 60);
        admit(&mut journal, &mut window, &minute.to_string(), now, now, MAX_AGE).unwrap();
        assert!(files(folder.path()).len() <= 8, "{:?}", files(folder.path()));
    }
    drop((journal, window));
    let (_, window, found) = open(folder.path(), at(19 * 60 + 1));
    assert_eq!(found, Found::Usable);
    // Those of the last 305 seconds.
    assert_eq!(window.len(), 6);
}

#[test]
fn a_longer_maximum_age_does_not_bring_back_what_was_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    drop((journal, window));
    let (mut journal, mut window, _) = open(folder.path(), at(400));
    let longer = Duration::from_secs(3600);
    assert_eq!(admit(&mut journal, &mut window, "one", NOW, at(400), longer), Err(AdmitRefusal::Starting));
    assert_eq!(admit(&mut journal, &mut window, "two", at(406), at(406), longer), Ok(()));
}

#[test]
fn a_clock_that_steps_back_between_two_runs_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    // Six minutes later the first segment has expired and is gone.
    admit(&mut journal, &mut window, "two", at(360), at(360), MAX_AGE).unwrap();
    drop((journal, window));
    let (mut journal, mut window, found) = open(folder.path(), at(10));
    assert_eq!(found, Found::Usable);
    assert_eq!(admit(&mut journal, &mut window, "one", NOW, at(10), MAX_AGE), Err(AdmitRefusal::Starting));
}

#[test]
fn what_could_not_be_written_leaves_a_readable_journal() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    // A file that cannot be written stands for a full disk.
    let path = segment_path(folder.path(), journal.current.number);
    let entry = window.admit(&KEY, "two", NOW, MAX_AGE, clocks(NOW)).unwrap();
    journal.current.file = Some(File::open(&path).unwrap());
    journal.append(&entry, MAX_AGE, NOW).unwrap_err();
    let entry = window.admit(&KEY, "three", NOW, MAX_AGE, clocks(NOW)).unwrap();
    journal.append(&entry, MAX_AGE, NOW).unwrap();
    drop(journal);
    let (_, window, found) = open(folder.path(), at(1));
    assert_eq!((found, window.len()), (Found::Usable, 2));
}

#[test]
fn after_a_failed_write_the_next_look_begins_another_segment_and_leaves_no_admission() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    let entry = window.admit(&KEY, "two", NOW, MAX_AGE, clocks(NOW)).unwrap();
    let number = journal.current.number;
    journal.current.file = Some(File::open(segment_path(folder.path(), number)).unwrap());
    journal.append(&entry, MAX_AGE, NOW).unwrap_err();
    assert_eq!(journal.failing(), Some(Failing::Otherwise));
    // In the way of the next.
    let blocked = segment_path(folder.path(), number + 1);
    fs::create_dir(&blocked).unwrap();
    journal.mend(at(1)).unwrap_err();
    assert_eq!(journal.failing(), Some(Failing::Otherwise), "as long as nothing can be written");
    fs::remove_dir(&blocked).unwrap();
    journal.mend(at(2)).unwrap();
    assert_eq!(journal.failing(), None);
    assert_eq!(*files(folder.path()).last().unwrap(), number + 1);
    drop(journal);
    let (_, window, found) = open(folder.path(), at(3));
    assert_eq!((found, window.len()), (Found::Usable, 1));
}

#[test]
fn a_journal_that_has_filled_its_volume_goes_on_in_the_room_of_what_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    admit(&mut journal, &mut window, "two", at(100), at(100), MAX_AGE).unwrap();
    let full = || fail(folder.path(), io::ErrorKind::StorageFull.into());
    let (first, next) = (journal.older[0].number, journal.current.number + 1);
    let header = |journal: &Journal, now: UnixSeconds| Header {
        hash_key: journal.hash_key,
        boot: journal.boot,
        max_age: MAX_AGE.as_secs(),
        number: next,
        opened: now.0,
        floor: journal.floor,
    };
    let early = header(&journal, at(200));
    let told = journal.begin_in_place_of_expired(&early, full()).unwrap_err();
    assert_eq!(told.failing(), Failing::Full, "what may still be replayed is kept");
    journal.high = at(310);
    let late = header(&journal, at(310));
    let begun = journal.begin_in_place_of_expired(&late, full()).unwrap();
    assert_eq!((begun.number, files(folder.path())), (next, vec![next - 1, next]));
    assert!(first < next - 1 && journal.older.is_empty());
    drop((journal, window));
    // As after any other rotation: a clock that has stepped back since brings nothing back.
    let (mut journal, mut window, found) = open(folder.path(), at(200));
    assert_eq!((found, window.len()), (Found::Usable, 1));
    for (nonce, created) in [("one", NOW), ("two", at(100))] {
        admit(&mut journal, &mut window, nonce, created, at(200), MAX_AGE).unwrap_err();
    }
}

#[test]
fn an_end_while_a_segment_takes_the_room_of_another_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    admit(&mut journal, &mut window, "two", at(100), at(100), MAX_AGE).unwrap();
    let (hash_key, boot, number) = (journal.hash_key, journal.boot, journal.current.number + 1);
    let header = Header { hash_key, boot, max_age: 300, number, opened: at(400).0, floor: 0 };
    let first = segment_path(folder.path(), journal.older[0].number);
    drop((journal, window));
    // Its header is written, its name is the old one yet.
    OpenOptions::new().write(true).open(&first).unwrap().write_all(&header.encode()).unwrap();
    let (_, _, found) = open(folder.path(), at(400));
    assert!(matches!(found, Found::Unusable(_)), "{found:?}");
}

#[test]
fn what_was_read_ahead_counts_and_nothing_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "early", NOW, NOW, MAX_AGE).unwrap();
    let ahead = Journal::preread(folder.path(), 1000, at(1), Behind::Nobody).unwrap();
    assert_eq!(ahead.len(), 1);
    // It is gone from the file: what was read ahead is all that is known of it.
    let early = segment_path(folder.path(), journal.current.number);
    admit(&mut journal, &mut window, "late", NOW, at(2), MAX_AGE).unwrap();
    let mut file = OpenOptions::new().write(true).open(&early).unwrap();
    file.seek(SeekFrom::Start(HEADER_BYTES as u64)).unwrap();
    file.write_all(&[0; Entry::ENCODED_BYTES]).unwrap();
    // And another segment is begun.
    admit(&mut journal, &mut window, "later", at(100), at(100), MAX_AGE).unwrap();
    assert!(files(folder.path()).len() > 1);
    drop((journal, window));

    let (mut journal, mut window, found) =
        Journal::open_after(folder.path(), 1000, at(101), Behind::Nobody, Some(ahead)).unwrap();
    assert_eq!((found, window.len()), (Found::Usable, 3));
    for nonce in ["early", "late", "later"] {
        let created = if nonce == "later" { at(100) } else { NOW };
        let again = admit(&mut journal, &mut window, nonce, created, at(101), MAX_AGE);
        assert_eq!(again, Err(AdmitRefusal::Replayed), "{nonce}");
    }
    assert_eq!(admit(&mut journal, &mut window, "new", at(101), at(101), MAX_AGE), Ok(()));
}

#[test]
fn what_was_read_ahead_of_another_journal_does_not_count() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut journal, mut window) = settled(one.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    let ahead = Journal::preread(one.path(), 1000, NOW, Behind::Nobody).unwrap();
    let (mut journal, mut window) = settled(other.path());
    admit(&mut journal, &mut window, "two", NOW, NOW, MAX_AGE).unwrap();
    drop((journal, window));
    let (mut journal, mut window, _) =
        Journal::open_after(other.path(), 1000, at(1), Behind::Nobody, Some(ahead)).unwrap();
    assert_eq!(window.len(), 1);
    let again = admit(&mut journal, &mut window, "two", NOW, at(1), MAX_AGE);
    assert_eq!(again, Err(AdmitRefusal::Replayed));
    assert!(Journal::preread(&other.path().join("nowhere"), 1000, NOW, Behind::Nobody).is_none());
}

#[test]
fn a_segment_that_is_gone_is_begun_anew_and_what_it_held_cannot_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    journal.mend(NOW).unwrap();
    let before = files(folder.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    let current = *files(folder.path()).last().unwrap();
    for number in files(folder.path()) {
        fs::remove_file(segment_path(folder.path(), number)).unwrap();
    }
    assert_eq!(before.len(), 1, "nothing is begun while nothing is missing");
    journal.mend(at(1)).unwrap();
    assert_eq!(files(folder.path()), [current + 1]);
    // This process goes on as before.
    assert!(!window.is_starting(at(1)));
    assert_eq!(admit(&mut journal, &mut window, "one", NOW, at(1), MAX_AGE), Err(AdmitRefusal::Replayed));
    assert_eq!(admit(&mut journal, &mut window, "two", at(1), at(1), MAX_AGE), Ok(()));
    drop((journal, window));
    // The next one does not know what the lost segment held, and so believes nothing that old.
    let (mut journal, mut window, _) = open(folder.path(), at(20));
    assert_eq!(admit(&mut journal, &mut window, "one", NOW, at(20), MAX_AGE), Err(AdmitRefusal::Starting));
    assert_eq!(admit(&mut journal, &mut window, "new", at(20), at(20), MAX_AGE), Ok(()));
}

#[test]
fn a_journal_that_cannot_be_begun_anew_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = settled(folder.path());
    let current = *files(folder.path()).last().unwrap();
    fs::remove_file(segment_path(folder.path(), current)).unwrap();
    let blocked = segment_path(folder.path(), current + 1);
    fs::create_dir(&blocked).unwrap();
    assert_eq!(journal.mend(NOW).unwrap_err().path, blocked);
    fs::remove_dir(&blocked).unwrap();
    journal.mend(NOW).unwrap();
}

#[test]
fn a_clock_that_was_a_day_ahead_costs_ten_seconds_also_after_a_restart_and_leaves_no_segment_for_a_day() {
    const AHEAD: u64 = 86_400;
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "before", NOW, NOW, MAX_AGE).unwrap();
    admit(&mut journal, &mut window, "ahead", at(AHEAD), at(AHEAD), MAX_AGE).unwrap();
    drop((journal, window));
    // It starts again when the clock is right.
    let (mut journal, mut window, found) = open(folder.path(), at(2));
    // The segment of the first was deleted when its time seemed to have passed.
    assert_eq!((found, window.len()), (Found::Usable, 1));
    assert!(window.is_starting(at(12)) && !window.is_starting(at(13)));
    admit(&mut journal, &mut window, "before", NOW, at(13), MAX_AGE).unwrap_err();
    for minute in 1..20 {
        let now = at(13 + minute * 60);
        admit(&mut journal, &mut window, &minute.to_string(), now, now, MAX_AGE).unwrap();
    }
    assert!(files(folder.path()).len() <= 8, "{:?}", files(folder.path()));
}

#[test]
fn a_clock_that_steps_back_while_it_runs_leaves_a_journal_that_ends_its_segments() {
    const AHEAD: u64 = 86_400;
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "ahead", at(AHEAD), at(AHEAD), MAX_AGE).unwrap();
    journal.turn_back(NOW, MAX_AGE);
    let mut window = ReplayWindow::new(1000, journal.hash_key);
    for minute in 0..20 {
        let now = at(13 + minute * 60);
        admit(&mut journal, &mut window, &minute.to_string(), now, now, MAX_AGE).unwrap();
    }
    assert!(files(folder.path()).len() <= 8, "{:?}", files(folder.path()));
    drop((journal, window));
    let (_, window, found) = open(folder.path(), at(13 + 20 * 60));
    assert_eq!(found, Found::Usable);
    assert!(window.len() >= 5 && !window.is_starting(at(13 + 20 * 60)));
}

#[test]
fn a_journal_behind_a_shared_window_is_not_all_that_was_used() {
    let folder = tempfile::tempdir().unwrap();
    let shared = |now| Journal::open_after(folder.path(), 1000, now, Behind::Shared, None).unwrap();
    let (mut journal, mut window, _) = shared(UnixSeconds(NOW.0 - 1000));
    window.lift_floor();
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    drop((journal, window));
    // With the shared window still behind it, it is what it was.
    let (journal, window, found) = shared(at(1));
    assert_eq!((found, window.len()), (Found::Usable, 1));
    drop((journal, window));
    // "two" was used at another replica.
    let (mut journal, mut window, found) = open(folder.path(), at(2));
    assert!(matches!(found, Found::Unusable(_)), "{found:?}");
    for nonce in ["one", "two"] {
        assert_eq!(admit(&mut journal, &mut window, nonce, NOW, at(2), MAX_AGE), Err(AdmitRefusal::Starting));
    }
    assert!(Journal::id_in(folder.path(), Behind::Nobody).is_some(), "it begins one of its own");
    admit(&mut journal, &mut window, "three", at(9), at(9), MAX_AGE).unwrap();
    drop((journal, window));
    let (_, window, found) = open(folder.path(), at(10));
    assert_eq!((found, window.len()), (Found::Usable, 1));
}

#[test]
fn a_journal_of_a_window_of_its_own_goes_on_as_earlier_versions_wrote_it_also_in_front_of_a_shared_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, mut window) = settled(folder.path());
    admit(&mut journal, &mut window, "one", NOW, NOW, MAX_AGE).unwrap();
    let bytes = fs::read(segment_path(folder.path(), journal.current.number)).unwrap();
    assert_eq!(bytes[24..40], boot::id().unwrap().to_le_bytes());
    drop((journal, window));
    let ahead = Journal::preread(folder.path(), 1000, at(1), Behind::Shared).unwrap();
    let (journal, window, found) =
        Journal::open_after(folder.path(), 1000, at(1), Behind::Shared, Some(ahead)).unwrap();
    assert_eq!((found, window.len()), (Found::Usable, 1));
    let bytes = fs::read(segment_path(folder.path(), journal.current.number)).unwrap();
    assert_eq!(bytes[24..40], (!boot::id().unwrap()).to_le_bytes(), "another boot to an earlier version");
}
