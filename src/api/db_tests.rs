//! The folder, the file and the thread.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn open(folder: &Path) -> Result<OpenDb, DbError> {
    OpenDb::open(folder, "pid 1 (test)")
}

#[test]
fn a_folder_has_one_process_and_a_private_file() {
    let folder = tempfile::tempdir().unwrap();
    let held = open(folder.path()).unwrap();
    assert!(matches!(open(folder.path()), Err(DbError::Locked(_))));
    let epoch = held.epoch.to_string();
    drop(held);
    let again = open(folder.path()).unwrap();
    assert_eq!(*again.epoch, *epoch);
    let mode = std::fs::metadata(folder.path().join(DATABASE_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn another_programs_database_and_a_newer_one_are_left_alone() {
    for (application, version) in [(0x5347_4c4d, 1), (migrate::APPLICATION_ID, migrate::NEWEST + 1)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE_FILE);
        let db = Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE mine (x)").unwrap();
        db.pragma_update(None, "application_id", application).unwrap();
        db.pragma_update(None, "user_version", version).unwrap();
        drop(db);
        let before = std::fs::read(&path).unwrap();
        let refused = open(folder.path()).unwrap_err();
        let expected =
            matches!(refused, DbError::Database(DatabaseError::Foreign { .. } | DatabaseError::Newer { .. }));
        assert!(expected, "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[tokio::test]
async fn failed_work_leaves_nothing_behind_and_a_panic_does_not_end_the_thread() {
    let folder = tempfile::tempdir().unwrap();
    let (db, thread) = open(folder.path()).unwrap().start().unwrap();
    let insert = "INSERT INTO revoked_tokens (token_hash, expires_at_ms) VALUES ('x', 1)";
    let failed: Result<(), Problem> = db
        .write(move |db| {
            db.execute(insert, [])?;
            Err(Problem::not_found())
        })
        .await;
    assert_eq!(failed.unwrap_err().code(), "NOT_FOUND");
    let panicked: Result<(), Problem> = db
        .write(move |db| {
            db.execute(insert, [])?;
            panic!("on purpose")
        })
        .await;
    assert_eq!(panicked.unwrap_err().code(), "INTERNAL_ERROR");
    let count = |db: &Connection| {
        let sql = "SELECT count(*) FROM revoked_tokens";
        Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    };
    assert_eq!(db.read(count).await.unwrap(), 0);
    drop(db);
    thread.join().unwrap();
}

#[tokio::test]
async fn a_long_read_holds_nobody_up_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (db, thread) = open(folder.path()).unwrap().start().unwrap();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let long = db.survey(move |db| {
        begun.send(()).unwrap();
        may_go_on.recv().unwrap();
        assert!(db.execute("DELETE FROM meta", []).is_err());
        Ok(())
    });
    let others = async {
        has_begun.await.unwrap();
        let put = db.write(|db| Ok(db.execute("INSERT INTO meta (name, value) VALUES ('a', 'b')", [])?)).await;
        assert_eq!(put.unwrap(), 1);
        go_on.send(()).unwrap();
    };
    let (read, ()) = tokio::join!(long, others);
    read.unwrap();
    let count =
        db.survey(|db| Ok(db.query_row("SELECT count(*) FROM meta WHERE name = 'a'", [], |row| row.get::<_, i64>(0))?));
    assert_eq!(count.await.unwrap(), 1);
    drop(db);
    thread.join().unwrap();
}
