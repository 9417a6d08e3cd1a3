use std::sync::Arc;
use std::sync::Mutex;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::audit::Asker;
use crate::domain::audit::Via;
use crate::domain::draft::Draft;
use crate::domain::record::Secrets;
use crate::domain::time::UnixMillis;

fn open(folder: &Path) -> OpenStore {
    OpenStore::open(folder, &Secret::new("key".to_owned()), "test").unwrap()
}

async fn create(store: &Store, id: String) {
    let draft = Draft {
        id,
        base_url: "https://api.example.com".to_owned(),
        auth_secret_key: "key".to_owned(),
        ..Draft::default()
    };
    let draft = draft.check(&AddressPolicy::default()).unwrap();
    let secrets = Secrets::from([("key".to_owned(), Secret::new("s".to_owned()))]);
    store
        .change(move |vault| vault.create_connection(draft, secrets, &Asker::local(Via::Command), UnixMillis(1)))
        .await
        .unwrap();
}

#[tokio::test]
async fn stored_and_other_changes_are_told_in_the_order_of_their_versions() {
    let folder = tempfile::tempdir().unwrap();
    let told: Arc<Mutex<Vec<(u64, &str)>>> = Arc::default();
    let listened = Arc::clone(&told);
    let listener: Listener = Box::new(move |version, _| listened.lock().unwrap().push((version, "stored")));
    let (store, thread) = open(folder.path()).start(listener).unwrap();
    let first = store.state().await.unwrap().version;
    let mut changes = tokio::task::JoinSet::new();
    for number in 0..10 {
        let (stored, advanced, told) = (store.clone(), store.clone(), Arc::clone(&told));
        changes.spawn(async move { create(&stored, format!("connection-{number}")).await });
        changes.spawn(async move {
            advanced.advance(move |version| told.lock().unwrap().push((version, "advanced"))).await.unwrap();
        });
    }
    changes.join_all().await;
    let told = std::mem::take(&mut *told.lock().unwrap());
    let versions: Vec<_> = told.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, (first + 1..=first + 20).collect::<Vec<_>>());
    assert_eq!(told.iter().filter(|(_, kind)| *kind == "advanced").count(), 10);
    // A version taken for something that does not lie in the store is taken all the same.
    drop(store);
    thread.join().unwrap();
    assert_eq!(open(folder.path()).vault.state().version, first + 20);
}
