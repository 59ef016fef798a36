//! Cluster IPs and node ports: what Services hold is known from the cache, what is being written is reserved beside it.
//!
//! With a store that several servers share, each number is also claimed by a key of its own in the commit that writes its holder.

mod range;

pub(crate) use range::AddressRange;
pub use range::api_service_address;

use crate::cache::{CacheEvent, Entry, Listener, ObjectCache, ResourceCache};
use crate::keys::{CLAIMS, ResourceId};
use crate::pipeline::Claim;
use bytes::Bytes;
use kubewright_core::api::core::service::{ServiceAllocation, Wanted, allocation};
use kubewright_core::{ApiError, Entropy, FieldError, FieldPath, meta};
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A number that only one Service may hold: `serviceips/10.96.0.1`, `nodeports/tcp/30080`.
type Number = String;

/// What is given out.
pub(crate) struct Allocator {
    addresses: AddressRange,
    ports: RangeInclusive<u16>,
    entropy: Arc<Entropy>,
    shared: bool,
    /// Held by stored Services or reserved for writes under way.
    used: Mutex<FxHashSet<Number>>,
}

/// Numbers reserved for one write; given back when dropped, unless the write was done.
pub(crate) struct Reserved {
    allocator: Arc<Allocator>,
    /// New ones, which the object did not hold before.
    taken: Vec<Number>,
    /// Given up by the object when the write is done.
    released: Vec<Number>,
    holder: Bytes,
}

impl Reserved {
    /// What the commit must claim and release; nothing where only this server writes.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        if !self.allocator.shared {
            return Vec::new();
        }
        let key = |number: &Number| Bytes::from(format!("{CLAIMS}{number}"));
        let taken = self.taken.iter().map(|n| Claim::Take { key: key(n), holder: self.holder.clone() });
        let released = self.released.iter().map(|n| Claim::Release { key: key(n) });
        taken.chain(released).collect()
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
                used.remove(number);
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
    pub(crate) fn new(
        addresses: AddressRange,
        ports: RangeInclusive<u16>,
        entropy: Arc<Entropy>,
        shared: bool,
    ) -> Self {
        Allocator { addresses, ports, entropy, shared, used: Mutex::default() }
    }

    /// The address of the `kubernetes` Service: the first of the range.
    pub(crate) fn first_address(&self) -> Ipv4Addr {
        self.addresses.at(0)
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
        families(service)?;
        let before = old.map(held).unwrap_or_default();
        let mut reserved = Reserved {
            allocator: self.clone(),
            taken: Vec::new(),
            released: Vec::new(),
            holder: Bytes::from(format!("{}/{}", meta::namespace(service), meta::name(service))),
        };
        let ServiceAllocation { cluster_ips, node_ports, health_check } = allocation(service);
        if let Some(wanted) = cluster_ips.first() {
            let address = self.address(service, wanted, &before, &mut reserved)?;
            service["spec"]["clusterIP"] = json!(address);
            service["spec"]["clusterIPs"] = json!([address]);
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
        Reserved { allocator: self.clone(), taken: Vec::new(), released: held(service), holder: Bytes::new() }
    }

    fn take(&self, number: &Number, reserved: &mut Reserved) -> bool {
        let taken = self.used.lock().insert(number.clone());
        if taken {
            reserved.taken.push(number.clone());
        }
        taken
    }

    fn address(
        &self,
        service: &Value,
        wanted: &Wanted<String>,
        before: &[Number],
        reserved: &mut Reserved,
    ) -> Result<String, ApiError> {
        let Wanted::This(address) = wanted else { return self.any_address(reserved) };
        let number = address_number(address);
        // Another address than the one it holds is refused by validation, in words of its own.
        let has_one = before.iter().any(|n| n.starts_with(ADDRESSES));
        if has_one || before.contains(&number) {
            return Ok(address.clone());
        }
        let refuse = |why: String| {
            let path = FieldPath::new("spec.clusterIPs");
            let why = format!("failed to allocate IP {address}: {why}");
            let error = FieldError::invalid(&path, json!([address]), &why);
            Err(ApiError::invalid("", "Service", meta::name(service), &[error]))
        };
        let inside = address.parse().is_ok_and(|a| self.addresses.contains(a));
        if !inside {
            let range = self.addresses;
            return refuse(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
            ));
        }
        if !self.take(&number, reserved) {
            return refuse("provided IP is already allocated".to_owned());
        }
        Ok(address.clone())
    }

    /// Upstream gives out of the upper part first, so that the lower one stays for those who choose themselves.
    fn any_address(&self, reserved: &mut Reserved) -> Result<String, ApiError> {
        let size = self.addresses.size();
        let band = (size / 16).clamp(16, 256).min(size / 2);
        let upper = size - band;
        let start = self.entropy.next_u64();
        for i in 0..size {
            let place = if i < upper { band + (start.wrapping_add(i)) % upper } else { i - upper };
            let address = self.addresses.at(place).to_string();
            if place != 0 && self.take(&address_number(&address), reserved) {
                return Ok(address);
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

/// The fields of single-stack IPv4, as upstream fills them in.
fn families(service: &mut Value) -> Result<(), ApiError> {
    let name = meta::name(service).to_owned();
    let Some(spec) = service.get_mut("spec").filter(|s| s.is_object()) else { return Ok(()) };
    if spec["type"] == "ExternalName" {
        return Ok(());
    }
    let refuse = |field: &str, value: Value, why: &str| {
        let error = FieldError::invalid(&FieldPath::new("spec").child(field), value, why);
        Err(ApiError::invalid("", "Service", &name, &[error]))
    };
    let single = "this cluster is not configured for dual-stack services";
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        return refuse("ipFamilyPolicy", spec["ipFamilyPolicy"].clone(), single);
    }
    if let Some(families) = spec["ipFamilies"].as_array()
        && let Some(at) = families.iter().position(|f| f != "IPv4")
    {
        let field = format!("ipFamilies[{at}]");
        return refuse(&field, families[at].clone(), "not configured on this cluster");
    }
    if spec["clusterIP"] == "None" && spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
        spec["clusterIPs"] = json!(["None"]);
    }
    if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = json!("SingleStack");
    }
    Ok(())
}

fn is_services(id: &ResourceId) -> bool {
    id.group.is_empty() && id.resource == "services"
}

fn held_by(entry: Option<&Arc<Entry>>) -> Vec<Number> {
    match entry.map(|e| e.shape.object.value()) {
        Some(Ok(service)) => held(&service),
        _ => Vec::new(),
    }
}

impl Listener for Allocator {
    fn changed(&self, resource: &ResourceCache, events: &[Arc<CacheEvent>]) {
        if !is_services(&resource.id) {
            return;
        }
        for event in events {
            let (before, after) = (held_by(event.before.as_ref()), held_by(event.after.as_ref()));
            let mut used = self.used.lock();
            for number in before.iter().filter(|n| !after.contains(n)) {
                used.remove(number);
            }
            used.extend(after);
        }
    }

    fn reloaded(&self, cache: &ObjectCache) {
        let services = cache.resource(&ResourceId { group: "".into(), resource: "services".into() });
        let snapshot = services.snapshot();
        let all: FxHashSet<Number> =
            snapshot.range(b"", b"").flat_map(|(_, entry)| held_by(Some(entry))).collect();
        // Reservations of writes under way stay: their own commits settle them.
        self.used.lock().extend(all);
    }
}
