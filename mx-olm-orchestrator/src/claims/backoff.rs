//! When a device that had no usable one-time key, or a server that did not answer, is asked again.

use std::collections::HashMap;

use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId};

/// The first pause, in milliseconds; each further one doubles it,
const FIRST_PAUSE_MS: u64 = 15_000;
/// up to this one for a device: others are served meanwhile,
const LONGEST_FOR_DEVICE_MS: u64 = 15 * 60_000;
/// and up to this one for a server: sends are refused meanwhile.
const LONGEST_FOR_SERVER_MS: u64 = 60_000;

/// More than this many are not remembered: what is forgotten is asked again.
const MOST: usize = 10_000;

type Device = (OwnedUserId, OwnedDeviceId);

#[derive(Clone, Copy, Debug)]
struct Pause {
    failures: u32,
    since_ms: u64,
}

impl Pause {
    const fn is_over(self, longest_ms: u64, now_ms: u64) -> bool {
        let doublings = if self.failures > 10 { 10 } else { self.failures - 1 };
        let pause = FIRST_PAUSE_MS << doublings;
        let pause = if pause > longest_ms { longest_ms } else { pause };
        // A clock that was put back does not make it longer.
        now_ms.abs_diff(self.since_ms) >= pause
    }
}

/// What was asked in vain. It lives as long as the process: a new one asks again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    devices: HashMap<Device, Pause>,
    servers: HashMap<OwnedServerName, Pause>,
}

impl Backoff {
    pub(super) fn waits_for_device(&self, device: &Device, now_ms: u64) -> bool {
        self.devices
            .get(device)
            .is_some_and(|pause| !pause.is_over(LONGEST_FOR_DEVICE_MS, now_ms))
    }

    pub(super) fn waits_for_server(&self, server: &OwnedServerName, now_ms: u64) -> bool {
        self.servers
            .get(server)
            .is_some_and(|pause| !pause.is_over(LONGEST_FOR_SERVER_MS, now_ms))
    }

    pub(super) fn device(&mut self, device: Device, worked: bool, now_ms: u64) {
        note(&mut self.devices, device, worked, now_ms);
    }

    pub(super) fn server(&mut self, server: OwnedServerName, worked: bool, now_ms: u64) {
        note(&mut self.servers, server, worked, now_ms);
    }
}

fn note<K: std::hash::Hash + Eq>(pauses: &mut HashMap<K, Pause>, key: K, worked: bool, now_ms: u64) {
    if worked {
        pauses.remove(&key);
        return;
    }
    if pauses.len() >= MOST && !pauses.contains_key(&key) {
        pauses.clear();
    }
    let pause = pauses.entry(key).or_insert(Pause {
        failures: 0,
        since_ms: now_ms,
    });
    pause.failures = pause.failures.saturating_add(1);
    pause.since_ms = now_ms;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_asked_less_and_less_until_it_answers() {
        let mut backoff = Backoff::default();
        let device: Device = ("@b:s".try_into().unwrap(), "D".into());
        assert!(!backoff.waits_for_device(&device, 0));
        backoff.device(device.clone(), false, 1_000);
        assert!(backoff.waits_for_device(&device, 15_999) && !backoff.waits_for_device(&device, 16_000));
        backoff.device(device.clone(), false, 16_000);
        assert!(backoff.waits_for_device(&device, 45_999) && !backoff.waits_for_device(&device, 46_000));
        (0..40).for_each(|_| backoff.device(device.clone(), false, 0));
        assert!(backoff.waits_for_device(&device, 899_999) && !backoff.waits_for_device(&device, 900_000));
        backoff.device(device.clone(), true, 0);
        assert!(!backoff.waits_for_device(&device, 0));
    }

    #[test]
    fn a_server_is_asked_again_within_a_minute() {
        let mut backoff = Backoff::default();
        let server: OwnedServerName = "hs2".try_into().unwrap();
        (0..40).for_each(|_| backoff.server(server.clone(), false, 0));
        assert!(backoff.waits_for_server(&server, 59_999) && !backoff.waits_for_server(&server, 60_000));
    }
}
