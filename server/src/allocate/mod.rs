//! Cluster IPs and node ports: what Services hold is known from the cache, what is being written is reserved beside it.
//!
//! The commit that writes a Service makes and deletes the IPAddress objects of its addresses. With a store that several servers share,
//! each port is also claimed by a key of its own in the commit that writes its holder.

mod families;
mod objects;
mod range;

pub(crate) use objects::{default_range, keep, repair};
pub use range::api_service_address;
use range::{AddressRange, Family};

use crate::cache::{CacheEvent, Entry, Listener, ObjectCache, ResourceCache};
use crate::keys::{CLAIMS, ResourceId};
use crate::kinds::KindTable;
use crate::pipeline::Claim;
use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use kubewright_core::api::core::service::{ServiceAllocation, Wanted, allocation};
use kubewright_core::{ApiError, Entropy, FieldError, FieldPath, meta};
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tokio::sync::Notify;

/// A number that only one Service may hold: `serviceips/10.96.0.1`, `nodeports/tcp/30080`.
type Number = String;

/// What is given out.
pub(crate) struct Allocator {
    /// Those of the server's configuration, one a family.
    own: Vec<AddressRange>,
    /// All that addresses are given out of: the own ones and those of ServiceCIDRs.
    ranges: ArcSwap<Vec<AddressRange>>,
    ports: RangeInclusive<u16>,
    entropy: Arc<Entropy>,
    shared: bool,
    /// Whether addresses have objects.
    objects: bool,
    used: Mutex<Used>,
    /// Told when an IPAddress goes that a Service holds.
    pub(crate) gone: Arc<Notify>,
}

#[derive(Default)]
struct Used {
    /// Held by stored Services or reserved for writes under way.
    numbers: FxHashSet<Number>,
    /// Addresses that have an object, whoever made it.
    objects: FxHashSet<Number>,
}

/// Numbers reserved for one write; given back when dropped, unless the write was done.
pub(crate) struct Reserved {
    allocator: Arc<Allocator>,
    /// New ones, which the object did not hold before.
    taken: Vec<Number>,
    /// Given up by the object when the write is done.
    released: Vec<Number>,
    /// Namespace and name of the Service.
    holder: (String, String),
}

impl Reserved {
    /// What the commit must claim and release: the objects of addresses, and keys where other servers write too.
    pub(crate) fn claims(&self, now: Timestamp) -> Vec<Claim> {
        let allocator = &self.allocator;
        let (namespace, name) = &self.holder;
        let key = |number: &Number| Bytes::from(format!("{CLAIMS}{number}"));
        let mut claims = Vec::new();
        for number in &self.taken {
            match number.strip_prefix(ADDRESSES).filter(|_| allocator.objects) {
                Some(address) => {
                    claims.push(objects::take(address, namespace, name, allocator.entropy.uid(), now));
                }
                None if allocator.shared => {
                    let holder = Bytes::from(format!("{namespace}/{name}"));
                    claims.push(Claim::Take { key: key(number), holder });
                }
                None => {}
            }
        }
        for number in &self.released {
            match number.strip_prefix(ADDRESSES).filter(|_| allocator.objects) {
                Some(address) => claims.push(Claim::Release { key: objects::key(address) }),
                None if allocator.shared => claims.push(Claim::Release { key: key(number) }),
                None => {}
            }
        }
        claims
    }

    /// The write was done: the cache will tell of the rest.
    pub(crate) fn keep(mut self) {
        self.taken.clear();
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.taken.is_empty() {
            let mut used = self.allocator.used.lock();
            for number in &self.taken {
                used.numbers.remove(number);
            }
        }
    }
}

const ADDRESSES: &str = "serviceips/";

fn address_number(address: &str) -> Number {
    format!("{ADDRESSES}{address}")
}

fn port_number(protocol: &str, port: u16) -> Number {
    format!("nodeports/{}/{port}", if protocol.is_empty() { "TCP" } else { protocol })
}

/// Every number that a stored Service holds.
fn held(service: &Value) -> Vec<Number> {
    let allocation = allocation(service);
    let mut numbers = Vec::new();
    for wanted in allocation.cluster_ips {
        if let Wanted::This(address) = wanted {
            numbers.push(address_number(&address));
        }
    }
    for wish in allocation.node_ports {
        if let Wanted::This(port) = wish.port {
            numbers.push(port_number(&wish.protocol, port));
        }
    }
    if let Some(Wanted::This(port)) = allocation.health_check {
        numbers.push(port_number("TCP", port));
    }
    numbers
}

impl Allocator {
    /// Out of the configuration: ranges, ports, whether other servers write into the store too.
    ///
    /// # Errors
    /// For ranges that are none.
    pub(crate) fn of(
        ranges: &str,
        ports: RangeInclusive<u16>,
        entropy: &Arc<Entropy>,
        shared: bool,
        kinds: &KindTable,
    ) -> Result<Arc<Self>, ApiError> {
        let own = AddressRange::parse_all(ranges).map_err(ApiError::internal)?;
        let ranges = ArcSwap::from_pointee(own.clone());
        let objects = kinds.get(&objects::addresses()).is_some();
        let (used, gone, entropy) = (Mutex::default(), Arc::default(), entropy.clone());
        Ok(Arc::new(Allocator { own, ranges, ports, entropy, shared, objects, used, gone }))
    }

    /// The address of the `kubernetes` Service: the first of the range.
    pub(crate) fn first_address(&self) -> IpAddr {
        self.own[0].at(0)
    }

    /// The ranges of the configuration, as text.
    pub(crate) fn default_ranges(&self) -> Vec<String> {
        self.own.iter().map(ToString::to_string).collect()
    }

    /// Gives a Service what it needs and writes it into the object; what the old one held stays.
    ///
    /// # Errors
    /// 422 for a number that is taken or out of range, 500 where none is left.
    pub(crate) fn assign(
        self: &Arc<Self>,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reserved, ApiError> {
        let cluster: Vec<Family> = self.own.iter().map(|range| range.family).collect();
        families::settle(service, old, &cluster)?;
        let before = old.map(held).unwrap_or_default();
        let mut reserved = Reserved {
            allocator: self.clone(),
            taken: Vec::new(),
            released: Vec::new(),
            holder: (meta::namespace(service).to_owned(), meta::name(service).to_owned()),
        };
        let ServiceAllocation { cluster_ips, node_ports, health_check } = allocation(service);
        if !cluster_ips.is_empty() {
            self.addresses(service, &cluster_ips, &before, &mut reserved)?;
        }
        let given: Vec<Option<u16>> = node_ports
            .iter()
            .map(|w| match w.port {
                Wanted::This(port) => Some(port),
                Wanted::Any => None,
            })
            .collect();
        // Given numbers first, so that a free choice cannot take them; one number serves several protocols.
        for (wish, given) in node_ports.iter().zip(&given).filter(|(_, g)| g.is_some()) {
            let port = given.unwrap_or_default();
            let path = FieldPath::new("spec.ports").index(wish.port_index).child("nodePort");
            self.port(service, &path, &wish.protocol, port, &before, &mut reserved)?;
        }
        for wish in node_ports.iter().filter(|w| w.port == Wanted::Any) {
            let port = self.any_port(&wish.protocol, &mut reserved)?;
            service["spec"]["ports"][wish.port_index]["nodePort"] = json!(port);
        }
        match health_check {
            None => {}
            Some(Wanted::This(port)) => {
                let path = FieldPath::new("spec.healthCheckNodePort");
                self.port(service, &path, "TCP", port, &before, &mut reserved)?;
            }
            Some(Wanted::Any) => {
                service["spec"]["healthCheckNodePort"] = json!(self.any_port("TCP", &mut reserved)?);
            }
        }
        let after = held(service);
        reserved.released = before.into_iter().filter(|n| !after.contains(n)).collect();
        Ok(reserved)
    }

    /// Gives up what a Service that goes held.
    pub(crate) fn release(self: &Arc<Self>, service: &Value) -> Reserved {
        let (taken, holder) = (Vec::new(), (String::new(), String::new()));
        Reserved { allocator: self.clone(), taken, released: held(service), holder }
    }

    fn take(&self, number: &Number, reserved: &mut Reserved) -> bool {
        let mut used = self.used.lock();
        let taken = !used.objects.contains(number) && used.numbers.insert(number.clone());
        if taken {
            reserved.taken.push(number.clone());
        }
        taken
    }

    /// An address for each of the Service's families: the given one, or any.
    fn addresses(
        &self,
        service: &mut Value,
        wanted: &[Wanted<String>],
        before: &[Number],
        reserved: &mut Reserved,
    ) -> Result<(), ApiError> {
        let families = service["spec"]["ipFamilies"].as_array().map_or(0, Vec::len).max(wanted.len());
        let mut addresses = Vec::with_capacity(families);
        for i in 0..families {
            let address = match wanted.get(i) {
                Some(Wanted::This(address)) => self.given(service, address, i, before, reserved)?,
                _ => {
                    let v6 = service["spec"]["ipFamilies"][i] == "IPv6";
                    self.any_address(if v6 { Family::V6 } else { Family::V4 }, reserved)?
                }
            };
            addresses.push(address);
        }
        service["spec"]["clusterIP"] = json!(addresses[0]);
        service["spec"]["clusterIPs"] = json!(addresses);
        Ok(())
    }

    fn given(
        &self,
        service: &Value,
        address: &str,
        place: usize,
        before: &[Number],
        reserved: &mut Reserved,
    ) -> Result<String, ApiError> {
        let number = address_number(address);
        // Another address than the one it holds is refused by validation, in words of its own.
        let held_before = before.iter().filter(|n| n.starts_with(ADDRESSES)).count();
        if place < held_before || before.contains(&number) {
            return Ok(address.to_owned());
        }
        let refuse = |why: String| {
            let path = FieldPath::new("spec.clusterIPs");
            let why = format!("failed to allocate IP {address}: {why}");
            let all = service["spec"]["clusterIPs"].as_array().cloned();
            let error = FieldError::invalid(&path, all.unwrap_or_else(|| vec![json!(address)]), &why);
            Err(ApiError::invalid("", "Service", meta::name(service), &[error]))
        };
        let ranges = self.ranges.load();
        let inside = address.parse().is_ok_and(|a: IpAddr| ranges.iter().any(|range| range.contains(a)));
        if !inside {
            let all: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            let range = all.join(", ");
            return refuse(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
            ));
        }
        if !self.take(&number, reserved) {
            return refuse("provided IP is already allocated".to_owned());
        }
        Ok(address.to_owned())
    }

    /// Upstream gives out of the upper part first, so that the lower one stays for those who choose themselves.
    fn any_address(&self, family: Family, reserved: &mut Reserved) -> Result<String, ApiError> {
        for range in self.ranges.load().iter().filter(|range| range.family == family) {
            let size = range.size();
            let band = (size / 16).clamp(16, 256).min(size / 2);
            let upper = size - band;
            let start = self.entropy.next_u64() % upper;
            for i in 0..size {
                // Both are below the size, so that their sum wraps at most once.
                let place = if i < upper {
                    band + (u128::from(start) + u128::from(i)).rem_euclid(u128::from(upper)) as u64
                } else {
                    i - upper
                };
                let address = range.at(place).to_string();
                let own = place == 0 && self.own.contains(range);
                if !own && self.take(&address_number(&address), reserved) {
                    return Ok(address);
                }
            }
        }
        Err(ApiError::internal("failed to allocate a serviceIP: range is full"))
    }

    fn port(
        &self,
        service: &Value,
        path: &FieldPath,
        protocol: &str,
        port: u16,
        before: &[Number],
        reserved: &mut Reserved,
    ) -> Result<(), ApiError> {
        let number = port_number(protocol, port);
        if before.contains(&number) || reserved.taken.contains(&number) {
            return Ok(());
        }
        let (first, last) = (self.ports.start(), self.ports.end());
        let why = if !self.ports.contains(&port) {
            format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
        } else if !self.take(&number, reserved) {
            "provided port is already allocated".to_owned()
        } else {
            return Ok(());
        };
        let error = FieldError::invalid(path, port, &why);
        Err(ApiError::invalid("", "Service", meta::name(service), &[error]))
    }

    fn any_port(&self, protocol: &str, reserved: &mut Reserved) -> Result<u16, ApiError> {
        let first = *self.ports.start();
        let size = u64::from(self.ports.end().saturating_sub(first)) + 1;
        let start = self.entropy.next_u64() % size;
        for i in 0..size {
            let port = first + u16::try_from((start + i) % size).unwrap_or(0);
            if self.take(&port_number(protocol, port), reserved) {
                return Ok(port);
            }
        }
        Err(ApiError::internal("failed to allocate a nodePort: range is full"))
    }
}

fn is(id: &ResourceId, group: &str, resource: &str) -> bool {
    id.group == group && id.resource == resource
}

/// The ranges that a ServiceCIDR gives: none while it is not ready or is going.
fn ranges_of(entry: &Entry) -> Vec<AddressRange> {
    let Ok(range) = entry.shape.object.value() else { return Vec::new() };
    let conditions = range["status"]["conditions"].as_array();
    let ready = conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    if !ready || meta::is_deleting(&range) {
        return Vec::new();
    }
    let cidrs = range["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    cidrs.filter_map(|cidr| AddressRange::parse(cidr).ok()).collect()
}

fn held_by(entry: Option<&Arc<Entry>>) -> Vec<Number> {
    match entry.map(|e| e.shape.object.value()) {
        Some(Ok(service)) => held(&service),
        _ => Vec::new(),
    }
}

impl Allocator {
    fn services_changed(&self, events: &[Arc<CacheEvent>]) {
        for event in events {
            let (before, after) = (held_by(event.before.as_ref()), held_by(event.after.as_ref()));
            let mut used = self.used.lock();
            for number in before.iter().filter(|n| !after.contains(n)) {
                used.numbers.remove(number);
            }
            used.numbers.extend(after);
        }
    }

    fn addresses_changed(&self, events: &[Arc<CacheEvent>]) {
        let mut used = self.used.lock();
        for event in events {
            let number = address_number(&String::from_utf8_lossy(&event.key));
            if event.after.is_some() {
                used.objects.insert(number);
            } else {
                used.objects.remove(&number);
                if used.numbers.contains(&number) {
                    self.gone.notify_one();
                }
            }
        }
    }

    fn ranges_changed(&self, all: &ResourceCache) {
        let mut ranges = self.own.clone();
        for (_, entry) in all.snapshot().range(b"", b"") {
            for range in ranges_of(entry) {
                if !ranges.contains(&range) {
                    ranges.push(range);
                }
            }
        }
        self.ranges.store(Arc::new(ranges));
    }
}

impl Listener for Allocator {
    fn changed(&self, resource: &ResourceCache, events: &[Arc<CacheEvent>]) {
        if is(&resource.id, "", "services") {
            self.services_changed(events);
        } else if is(&resource.id, objects::GROUP, "ipaddresses") {
            self.addresses_changed(events);
        } else if is(&resource.id, objects::GROUP, "servicecidrs") {
            self.ranges_changed(resource);
        }
    }

    fn reloaded(&self, cache: &ObjectCache) {
        let of = |group: &str, resource: &str| {
            cache.resource(&ResourceId { group: group.into(), resource: resource.into() })
        };
        let services = of("", "services").snapshot();
        let all: FxHashSet<Number> =
            services.range(b"", b"").flat_map(|(_, entry)| held_by(Some(entry))).collect();
        let objects = of(objects::GROUP, "ipaddresses").snapshot();
        let name = |key: &Bytes| address_number(&String::from_utf8_lossy(key));
        let mut used = self.used.lock();
        // Reservations of writes under way stay: their own commits settle them.
        used.numbers.extend(all);
        used.objects = objects.range(b"", b"").map(|(key, _)| name(key)).collect();
        drop(used);
        self.ranges_changed(&of(objects::GROUP, "servicecidrs"));
    }
}
