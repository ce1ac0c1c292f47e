//! A commit is one sync, no more and no less; reading and refusing is none.

use mx_crypto_store::backend::Batch;

use crate::{
    engine::{Engine, runtime},
    recorder::Disk,
};

async fn counted(engine: Engine) {
    let disk = Disk::default();
    let backend = engine.open(&disk).await.unwrap();
    let put = |number: u8| Batch::new().put([number % 16], vec![number; 900]).put("last", [number]);
    // The first commits make the files grow.
    for number in 0..20 {
        backend.commit(put(number)).await.unwrap();
    }
    for number in 20..70 {
        let before = disk.syncs();
        backend.commit(put(number)).await.unwrap();
        assert_eq!(disk.syncs() - before, 1, "{engine:?}, commit {number}");
    }
    let before = disk.operations();
    backend.get(b"last").await.unwrap();
    backend.scan(b"", None, 100).await.unwrap();
    backend.commit(put(1).expect("last", None)).await.unwrap_err();
    backend
        .commit(Batch::new().expect("last", Some(vec![69])))
        .await
        .unwrap();
    assert_eq!(
        disk.operations(),
        before,
        "{engine:?} writes where nothing is to be written"
    );
}

#[test]
fn sqlite() {
    runtime().block_on(counted(Engine::Sqlite));
}

#[test]
fn redb() {
    runtime().block_on(counted(Engine::Redb));
}

/// The WAL goes into the database now and then: three syncs more, in some hundreds of commits.
#[test]
fn a_checkpoint_of_sqlite_is_rare() {
    runtime().block_on(async {
        let disk = Disk::default();
        let backend = Engine::Sqlite.open(&disk).await.unwrap();
        let before = disk.syncs();
        for number in 0..1000_u16 {
            let batch = Batch::new()
                .put((number % 16).to_be_bytes(), vec![1; 900])
                .put("last", number.to_be_bytes());
            backend.commit(batch).await.unwrap();
        }
        let more = disk.syncs() - before - 1000;
        assert!((1..=15).contains(&more), "{more} syncs more than commits");
        println!("1000 commits of SQLite: {more} syncs more than commits");
    });
}
