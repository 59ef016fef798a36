//! As whom a program runs: user namespaces, user and group ids, capabilities.

use super::StageResult;
use crate::embedded::spec::{Rights, UserSpec};
use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid};
use rustix::thread::CapabilitySet;

/// What a container's program may do as root when nothing else is said: the set that the common runtimes agree on.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Makes and enters a user namespace in which the caller is root and nobody else exists.
pub(super) fn enter_new_user_namespace() -> StageResult<()> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    enter_mapped(0, uid, 0, gid)
}

/// From a namespace in which the caller is root, one in which it is `uid` and `gid`: files and rights stay those of root.
pub(super) fn become_single_user(uid: u32, gid: u32) -> StageResult<()> {
    enter_mapped(uid, 0, gid, 0)
}

fn enter_mapped(uid: u32, outside_uid: u32, gid: u32, outside_gid: u32) -> StageResult<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| format!("user namespace: {e}"))?;
    let write = |file: &str, text: &str| {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|e| format!("/proc/self/{file}: {e}"))
    };
    // Inside a namespace where it was denied before, it can't and need not be denied again.
    let denied = write("setgroups", "deny");
    write("uid_map", &format!("{uid} {outside_uid} 1"))?;
    write("gid_map", &format!("{gid} {outside_gid} 1")).map_err(|e| match denied {
        Ok(()) => e,
        Err(before) => format!("{before}; {e}"),
    })
}

/// The ids that a user has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: Option<String>,
}

/// Looks a user up in the files of the container's root.
pub(super) fn look_up(user: &UserSpec, passwd: &str, group: &str) -> StageResult<Ids> {
    let (name, group_name) = match user.name.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user.name.as_str(), None),
    };
    let wanted = user.uid.map(|uid| uid.to_string()).unwrap_or_else(|| name.to_owned());
    let lines = || passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 6);
    let entry = lines().find(|f| f[0] == wanted || f[2] == wanted);
    let uid = match &entry {
        Some(fields) => fields[2].parse().ok(),
        None if wanted.is_empty() => Some(0),
        None => wanted.parse().ok(),
    };
    let uid =
        uid.ok_or_else(|| format!("unable to find user {wanted}: no matching entries in passwd file"))?;
    let groups = || group.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 4);
    let gid = match (user.gid, group_name) {
        (Some(gid), _) => gid,
        (None, Some(wanted)) => {
            let found = groups().find(|f| f[0] == wanted).and_then(|f| f[2].parse().ok());
            found
                .or_else(|| wanted.parse().ok())
                .ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))?
        }
        (None, None) => entry.as_ref().and_then(|f| f[3].parse().ok()).unwrap_or(0),
    };
    let login = entry.as_ref().map(|f| f[0]);
    let member = |f: &Vec<&str>| login.is_some_and(|login| f[3].split(',').any(|one| one == login));
    let mut all: Vec<u32> = groups().filter(member).filter_map(|f| f[2].parse().ok()).collect();
    all.extend(&user.groups);
    Ok(Ids { uid, gid, groups: all, home: entry.map(|f| f[5].to_owned()) })
}

/// Gives up what the program may not have, and becomes its user. `single` where only one user exists.
pub(super) fn take_on(ids: &Ids, rights: &Rights, single: bool) -> StageResult<()> {
    let kept = kept_capabilities(rights);
    for capability in CapabilitySet::all().iter().filter(|one| !kept.contains(*one)) {
        // One that this kernel does not know can't be in the set.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    if !single {
        let groups: Vec<Gid> = ids.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        nix::unistd::setgroups(&groups).map_err(|e| format!("setgroups: {e}"))?;
        let (gid, uid) = (Gid::from_raw(ids.gid), Uid::from_raw(ids.uid));
        nix::unistd::setresgid(gid, gid, gid).map_err(|e| format!("setgid {}: {e}", ids.gid))?;
        nix::unistd::setresuid(uid, uid, uid).map_err(|e| format!("setuid {}: {e}", ids.uid))?;
    } else if (ids.uid, ids.gid) != (0, 0) {
        become_single_user(ids.uid, ids.gid)?;
    }
    if ids.uid == 0 {
        let now = rustix::thread::capabilities(None).map_err(|e| format!("capabilities: {e}"))?;
        let sets = rustix::thread::CapabilitySets {
            effective: now.effective & kept,
            permitted: now.permitted & kept,
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, sets).map_err(|e| format!("capabilities: {e}"))?;
    }
    if rights.no_new_privs {
        nix::sys::prctl::set_no_new_privs().map_err(|e| format!("no_new_privs: {e}"))?;
    }
    Ok(())
}

fn kept_capabilities(rights: &Rights) -> CapabilitySet {
    if rights.privileged {
        return CapabilitySet::all();
    }
    let named = |name: &String| CapabilitySet::from_name(&name.to_ascii_uppercase());
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let mut kept = match (all(&rights.add), all(&rights.drop)) {
        (true, _) => CapabilitySet::all(),
        (false, true) => CapabilitySet::empty(),
        (false, false) => DEFAULT.iter().filter_map(|name| CapabilitySet::from_name(name)).collect(),
    };
    if !all(&rights.drop) {
        kept -= rights.drop.iter().filter_map(named).collect();
    }
    kept | rights.add.iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:,,,:/srv:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nmedia:x:44:web,other\n";

    fn spec(name: &str, uid: Option<u32>, gid: Option<u32>) -> UserSpec {
        UserSpec { name: name.to_owned(), uid, gid, groups: Vec::new() }
    }

    #[test]
    fn users_are_looked_up() {
        let check = |user: UserSpec, want: Result<(u32, u32, &[u32]), &str>| {
            let got = look_up(&user, PASSWD, GROUP);
            let got =
                got.as_ref().map(|ids| (ids.uid, ids.gid, ids.groups.as_slice())).map_err(String::as_str);
            assert_eq!(got, want, "{user:?}");
        };
        check(spec("", None, None), Ok((0, 0, &[])));
        check(spec("web", None, None), Ok((101, 102, &[44])));
        check(spec("101", None, None), Ok((101, 102, &[44])));
        check(spec("web:media", None, None), Ok((101, 44, &[44])));
        check(spec("1000:1001", None, None), Ok((1000, 1001, &[])));
        check(spec("web", Some(5), Some(6)), Ok((5, 6, &[])));
        check(
            spec("nobody", None, None),
            Err("unable to find user nobody: no matching entries in passwd file"),
        );
        check(
            spec("0:none", None, None),
            Err("unable to find group none: no matching entries in group file"),
        );
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let check = |add: &[&str], drop: &[&str], want: CapabilitySet| {
            let rights = Rights { add: names(add), drop: names(drop), ..Rights::default() };
            assert_eq!(kept_capabilities(&rights), want, "+{add:?} -{drop:?}");
        };
        let default = kept_capabilities(&Rights::default());
        assert_eq!(default.iter().count(), DEFAULT.len());
        check(&["NET_ADMIN"], &[], default | CapabilitySet::NET_ADMIN);
        check(&[], &["kill"], default - CapabilitySet::KILL);
        check(&[], &["ALL"], CapabilitySet::empty());
        check(&["NET_BIND_SERVICE"], &["ALL"], CapabilitySet::NET_BIND_SERVICE);
        check(&["all"], &["CHOWN"], CapabilitySet::all() - CapabilitySet::CHOWN);
    }
}
