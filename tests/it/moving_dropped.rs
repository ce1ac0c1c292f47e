//! A move that is dropped at any of its awaits: there is one device, whole, or the same call makes it.

use mx_e2ee::MovedDevice;

use crate::{
    cancel::dropped_at,
    moving::{Scene, file_key, scene},
};

/// Again, until what a call that was dropped left under way in a thread has ended.
async fn when_free<T>(mut call: impl AsyncFnMut() -> mx_e2ee::Result<T>) -> mx_e2ee::Result<T> {
    loop {
        match call().await {
            Err(error) if error.code() == "store_in_use" => tokio::task::yield_now().await,
            ended => return ended,
        }
    }
}

/// Dropped at each of its awaits: there is one device, and a call that ends the move.
#[expect(clippy::future_not_send, reason = "a test awaits it where it is")]
async fn one_device_whenever(
    way: impl AsyncFn(&Scene, &str, bool) -> mx_e2ee::Result<MovedDevice>,
    there: &str,
    arrive: impl AsyncFn(&Scene),
) {
    for nth in 1.. {
        let scene = scene().await;
        let has_left = || scene.path(there).exists();
        let (done, _) = dropped_at(nth, way(&scene, there, false)).await;
        if let Some(done) = done {
            done.unwrap();
            assert!(nth > 5, "{nth}: it has awaits");
            return;
        }
        match when_free(async || scene.at("here").open().await).await {
            Ok(client) => {
                client.close().await.unwrap();
                assert!(!has_left(), "{nth}: it runs in two places");
                scene.goes_on("here").await;
                continue;
            }
            Err(error) => assert!(
                error.code().starts_with("move_") || error.code() == "device_moved",
                "{nth}: {error}"
            ),
        }
        let refused = scene.at("here").forget().await.unwrap_err();
        assert_eq!(refused.code(), "move_unfinished", "{nth}");
        if has_left() {
            // Another place gets nothing without being told to.
            let other = when_free(async || way(&scene, "elsewhere", false).await).await;
            assert_eq!(other.unwrap_err().code(), "move_unfinished", "{nth}");
            assert!(!scene.path("elsewhere").exists());
            way(&scene, there, false).await.unwrap();
        } else {
            let same = when_free(async || way(&scene, there, false).await).await;
            if let Err(error) = same {
                assert_eq!(error.code(), "move_unfinished", "{nth}");
                way(&scene, there, true).await.unwrap();
            }
        }
        scene.is_gone("here").await;
        arrive(&scene).await;
        scene.goes_on("there").await;
    }
}

#[tokio::test]
async fn a_move_that_is_dropped_leaves_one_device() {
    one_device_whenever(
        async |scene, to, again| {
            let (from, to) = (scene.at("here"), scene.path(to));
            if again {
                from.move_out_again(to, &file_key()).await
            } else {
                from.move_out(to, &file_key()).await
            }
        },
        "file",
        async |scene| drop(scene.arrive("there").await.unwrap()),
    )
    .await;
}

#[tokio::test]
async fn a_copy_that_is_dropped_leaves_one_device() {
    one_device_whenever(
        async |scene, to, again| {
            let (from, to) = (scene.at("here"), scene.path(to));
            if again {
                from.move_to_again(to).await
            } else {
                from.move_to(to).await
            }
        },
        "there",
        async |_| (),
    )
    .await;
}

#[tokio::test]
async fn an_arrival_that_is_dropped_is_whole_or_nothing() {
    for nth in 1.. {
        let scene = scene().await;
        scene.out("here").await.unwrap();
        let (done, _) = dropped_at(nth, scene.arrive("there")).await;
        assert_eq!(scene.path("there").exists(), done.is_some(), "{nth}");
        let is_done = done.is_some();
        if let Some(done) = done {
            done.unwrap();
            assert!(nth > 5, "{nth}: it has awaits");
        } else {
            when_free(async || scene.arrive("there").await).await.unwrap();
        }
        scene.goes_on("there").await;
        if is_done {
            return;
        }
    }
}
