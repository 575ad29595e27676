//! How many connections there may be: in all, before their first request, and of one address.
//!
//! An address is an IPv4 address, or the first 64 bits of an IPv6 address, which is what one
//! household or phone is given. What a proxy says of it (`X-Forwarded-For`) is not heard: anybody
//! can write that.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config;
use crate::gateway::metrics::{GatewayMetrics, TurnedAway};
use crate::telemetry::Held;

/// Between two looks for addresses that can be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// One address may hold one in so many of the handshakes, or whoever is silent from there keeps
/// everybody out.
const ADDRESS_HANDSHAKES_PART: usize = 4;

/// One address, kept while it has a connection open or made one within the last second.
struct Address {
    open: usize,
    /// Of those, how many have not sent their first request.
    handshakes: usize,
    /// How many new connections it may make at once.
    allowance: f64,
    /// When the allowance was so.
    at: Instant,
}

struct Book {
    open: usize,
    addresses: HashMap<IpAddr, Address>,
    swept_at: Instant,
}

/// Admits connections.
pub(super) struct Caps {
    connections: usize,
    address_connections: usize,
    address_per_s: f64,
    address_handshakes: usize,
    handshakes: Arc<Semaphore>,
    book: Mutex<Book>,
    metrics: GatewayMetrics,
}

/// A connection's place among all; given back when it is dropped, so it goes wherever the
/// connection goes.
pub(super) struct Place {
    caps: Arc<Caps>,
    address: IpAddr,
    _held: Held,
}

/// The right to take some time to the first request.
pub(super) struct Handshake {
    caps: Arc<Caps>,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
    _held: Held,
}

impl Caps {
    pub(super) fn new(settings: &config::Gateway, metrics: GatewayMetrics) -> Self {
        let handshakes = settings.handshakes.min(Semaphore::MAX_PERMITS);
        Self {
            connections: settings.connections,
            address_connections: settings.address_connections,
            address_per_s: f64::from(settings.address_per_s),
            // A proxy's address is everybody's.
            address_handshakes: if settings.address_connections >= settings.connections {
                handshakes
            } else {
                handshakes.div_ceil(ADDRESS_HANDSHAKES_PART)
            },
            handshakes: Arc::new(Semaphore::new(handshakes)),
            book: Mutex::new(Book {
                open: 0,
                addresses: HashMap::new(),
                swept_at: Instant::now(),
            }),
            metrics,
        }
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.book().open
    }

    /// Whether a connection from there may come in now.
    pub(super) fn admit(
        self: &Arc<Self>,
        from: IpAddr,
        now: Instant,
    ) -> Result<(Place, Handshake), TurnedAway> {
        let address = counted_as(from);
        let permit = {
            let mut book = self.book();
            if now.duration_since(book.swept_at) >= SWEEP_EVERY {
                book.swept_at = now;
                let is_idle = |address: &Address| {
                    address.open == 0
                        && address.handshakes == 0
                        && now.duration_since(address.at) >= SWEEP_EVERY
                };
                book.addresses.retain(|_, address| !is_idle(address));
            }
            if book.open >= self.connections {
                return Err(TurnedAway::Connections);
            }
            let entry = book.addresses.entry(address).or_insert(Address {
                open: 0,
                handshakes: 0,
                allowance: self.address_per_s,
                at: now,
            });
            if entry.open >= self.address_connections {
                return Err(TurnedAway::AddressConnections);
            }
            let since = now.duration_since(entry.at).as_secs_f64();
            entry.allowance =
                (entry.allowance + since * self.address_per_s).min(self.address_per_s);
            entry.at = now;
            if entry.allowance < 1.0 {
                return Err(TurnedAway::AddressRate);
            }
            entry.allowance -= 1.0;
            if entry.handshakes >= self.address_handshakes {
                return Err(TurnedAway::Handshakes);
            }
            let permit = Arc::clone(&self.handshakes).try_acquire_owned();
            let permit = permit.map_err(|_| TurnedAway::Handshakes)?;
            entry.open += 1;
            entry.handshakes += 1;
            book.open += 1;
            permit
        };
        let place = Place {
            caps: Arc::clone(self),
            address,
            _held: Held::of(self.metrics.connections.clone()),
        };
        let handshake = Handshake {
            caps: Arc::clone(self),
            address,
            _permit: permit,
            _held: Held::of(self.metrics.handshakes.clone()),
        };
        Ok((place, handshake))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic while it is held leaves counts that are right: each change is one step.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = self.caps.book();
        book.open = book.open.saturating_sub(1);
        if let Some(address) = book.addresses.get_mut(&self.address) {
            address.open = address.open.saturating_sub(1);
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if let Some(address) = self.caps.book().addresses.get_mut(&self.address) {
            address.handshakes = address.handshakes.saturating_sub(1);
        }
    }
}

/// The address that a connection from there is counted under.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(settings: config::Gateway) -> Arc<Caps> {
        Arc::new(Caps::new(&settings, GatewayMetrics::new()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_given_back() {
        let caps = caps(config::Gateway {
            connections: 2,
            ..config::Gateway::default()
        });
        let now = Instant::now();
        let one = caps.admit(ip("10.0.0.1"), now).ok().unwrap();
        let _two = caps.admit(ip("10.0.0.2"), now).ok().unwrap();
        let refused = caps.admit(ip("10.0.0.3"), now).err();
        assert_eq!(refused, Some(TurnedAway::Connections));
        assert_eq!((caps.open(), caps.metrics.connections.get()), (2, 2));
        drop(one);
        assert_eq!((caps.open(), caps.metrics.connections.get()), (1, 1));
        assert!(caps.admit(ip("10.0.0.3"), now).is_ok());
    }

    #[test]
    fn a_handshake_is_over_before_its_connection() {
        let caps = caps(config::Gateway {
            handshakes: 1,
            ..config::Gateway::default()
        });
        let now = Instant::now();
        let (_place, handshake) = caps.admit(ip("10.0.0.1"), now).ok().unwrap();
        let refused = caps.admit(ip("10.0.0.2"), now).err();
        assert_eq!(refused, Some(TurnedAway::Handshakes));
        assert_eq!(caps.open(), 1, "who is refused has no place");
        drop(handshake);
        assert!(caps.admit(ip("10.0.0.2"), now).is_ok());
    }

    #[test]
    fn one_address_can_not_hold_all_handshakes() {
        let settings = config::Gateway {
            handshakes: 8,
            ..config::Gateway::default()
        };
        let a_proxy_s = caps(config::Gateway {
            address_connections: settings.connections,
            ..settings.clone()
        });
        let caps = caps(settings);
        let now = Instant::now();
        let mut silent: Vec<_> = (0..3).map(|_| caps.admit(ip("10.0.0.1"), now)).collect();
        let refused = silent.pop().unwrap().err();
        assert_eq!(refused, Some(TurnedAway::Handshakes));
        assert!(caps.admit(ip("10.0.0.2"), now).is_ok());
        silent.clear();
        assert!(caps.admit(ip("10.0.0.1"), now).is_ok());
        let all: Vec<_> = (0..8)
            .map(|_| a_proxy_s.admit(ip("10.0.0.1"), now))
            .collect();
        assert!(all.iter().all(Result::is_ok));
    }

    #[test]
    fn one_address_has_its_own_caps() {
        let caps = caps(config::Gateway {
            address_connections: 3,
            address_per_s: 2,
            ..config::Gateway::default()
        });
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let admit = |from: &str, ms| caps.admit(ip(from), after(ms)).map(|(place, _)| place);
        let _a = admit("10.0.0.1", 0).ok().unwrap();
        let _b = admit("::ffff:10.0.0.1", 0).ok().unwrap();
        assert_eq!(admit("10.0.0.1", 100).err(), Some(TurnedAway::AddressRate));
        assert!(admit("10.0.0.2", 100).is_ok(), "another address");
        let c = admit("10.0.0.1", 600).ok().unwrap();
        let full = admit("10.0.0.1", 5_000).err();
        assert_eq!(full, Some(TurnedAway::AddressConnections));
        drop(c);
        assert!(admit("10.0.0.1", 6_000).is_ok());
        // A household of IPv6 counts as one.
        let _d = admit("2001:db8:1:2::1", 6_000).ok().unwrap();
        let _e = admit("2001:db8:1:2:ffff::9", 6_000).ok().unwrap();
        assert_eq!(
            admit("2001:db8:1:2::3", 6_000).err(),
            Some(TurnedAway::AddressRate)
        );
        assert!(admit("2001:db8:1:3::1", 6_000).is_ok());
    }

    #[test]
    fn addresses_that_have_gone_are_forgotten() {
        let caps = caps(config::Gateway::default());
        let now = Instant::now();
        for last in 0..200 {
            drop(caps.admit(IpAddr::from([10, 0, 0, last]), now));
        }
        let _held = caps.admit(ip("10.0.1.1"), now).ok().unwrap();
        assert_eq!(caps.book().addresses.len(), 201);
        drop(caps.admit(ip("10.0.2.1"), now + Duration::from_secs(2)));
        assert_eq!(caps.book().addresses.len(), 2);
    }
}
