//! The engine of an outside author, `examples/own_engine.rs`, passes the suite and survives its process.

use std::path::PathBuf;

use mx_crypto_store::{backend::Backend, conformance};

#[path = "../examples/own_engine.rs"]
#[expect(dead_code, reason = "an example has a main")]
mod own_engine;
use own_engine::Log;

#[tokio::test]
async fn it_passes() {
    let directory = tempfile::tempdir().unwrap();
    let open = || async { Log::open(directory.path()).map(|log| Box::new(log) as Box<dyn Backend>) };
    conformance::all(&open).await;
}

#[test]
fn it_survives() {
    conformance::killed::survives("it_survives", 50, |directory: PathBuf| async move {
        Log::open(&directory).map(|log| Box::new(log) as Box<dyn Backend>)
    });
}

#[tokio::test]
async fn damage_before_the_tail_is_an_error_and_a_torn_tail_is_not() {
    use mx_crypto_store::backend::{BackendErrorKind, Batch};
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path()).unwrap();
    for number in 0..3_u8 {
        log.commit(Batch::new().put([number], vec![number + 1; 1000]))
            .await
            .unwrap();
    }
    log.close().await.unwrap();
    let file = directory.path().join("log");
    let whole = std::fs::read(&file).unwrap();
    let record = whole.len() / 3;
    let rows = async |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let log = Log::open(directory.path()).unwrap();
        log.scan(b"", None, 10).await.unwrap().len()
    };
    for cut in 0..whole.len() {
        if cut % 61 == 0 {
            assert_eq!(rows(&whole[..cut]).await, cut / record, "cut at {cut}");
        }
        if cut % 64 == 0 {
            // The file has its new length, and what should be in it was not written.
            let mut torn = whole[..cut].to_vec();
            torn.resize((cut / record + 1) * record, 0);
            assert_eq!(rows(&torn).await, cut / record, "zeros from {cut}");
        }
    }
    let mut damaged = whole;
    damaged[100] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    assert_eq!(
        Log::open(directory.path()).unwrap_err().kind(),
        BackendErrorKind::Corrupt
    );
    assert_eq!(std::fs::read(&file).unwrap(), damaged, "it is left alone");
}
