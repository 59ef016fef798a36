//! Containers: made, started, stopped, removed.

use super::sandboxes::spawn_helper;
use super::shim::ShimRequest;
use super::spec::{
    CONTAINER_FILE, ContainerRecord, EXITED_FILE, Exited, Rights, SPEC_FILE, STARTED_FILE, SandboxRecord,
    Spec, UserSpec, read_json, write_json,
};
use super::state::{ContainerEntry, Phase};
use super::{Inner, Isolation, client, failed, rootfs};
use crate::images::StoredImage;
use crate::port::{ContainerConfig, NamespaceMode, PodSandboxConfig, SecurityContext};
use crate::{Error, Reason};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const KILL_TIME_MAX: Duration = Duration::from_secs(20);

impl Inner {
    pub(super) async fn create_container(
        self: &Arc<Self>,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String, Error> {
        let sandbox = self.sandbox(sandbox_id)?;
        // A sandbox that is being stopped gets no more containers.
        let _busy = sandbox.busy.lock().await;
        self.dialer(&sandbox)?;
        let image = self
            .images
            .find(&config.image)
            .ok_or_else(|| Error::new(Reason::NotFound, format!("image {:?} not found", config.image)))?;
        let id = self.new_id();
        let dir = self.container_dir(&id);
        let log_path = match (sandbox_config.log_directory.as_str(), config.log_path.as_str()) {
            ("", _) | (_, "") => String::new(),
            (directory, path) => Path::new(directory).join(path).display().to_string(),
        };
        let record = ContainerRecord {
            id: id.clone(),
            sandbox_id: sandbox_id.to_owned(),
            image_id: image.id.clone(),
            image_ref: image.reference(),
            log_path,
            created_at: self.now(),
            stop_signal: stop_signal(image.config.stop_signal.as_deref())?,
            config,
        };
        let parent = sandbox.record.lock().clone();
        let spec = self.spec(&record, &parent, &sandbox.dir, &image, dir.clone())?;
        if let Err(error) = self.lay_out(&record, &spec).await {
            rootfs::remove_tree(&dir).map_err(|e| failed("container", &e))?;
            return Err(error);
        }
        let entry = Arc::new(ContainerEntry::new(record, dir, Phase::Created));
        self.containers.lock().insert(id.clone(), entry);
        self.announce();
        Ok(id)
    }

    async fn lay_out(&self, record: &ContainerRecord, spec: &Spec) -> Result<(), Error> {
        let (layers, spec_copy) = (self.images.layers_dir(), spec.clone());
        let image = self.images.find(&record.image_id);
        let names = image.map(|image| image.layers).unwrap_or_default();
        let work = tokio::task::spawn_blocking(move || rootfs::prepare(&spec_copy, &layers, &names));
        let done = work.await.map_err(|e| Error::new(Reason::Failed, e.to_string()))?;
        done.map_err(|e| failed("root file system", &e))?;
        let say = |e: std::io::Error| failed("container", &e);
        write_json(&spec.dir.join(SPEC_FILE), spec).map_err(say)?;
        // The last file: a container without it was never made.
        write_json(&spec.dir.join(CONTAINER_FILE), record).map_err(say)
    }

    fn spec(
        &self,
        record: &ContainerRecord,
        sandbox: &SandboxRecord,
        sandbox_dir: &Path,
        image: &StoredImage,
        dir: PathBuf,
    ) -> Result<Spec, Error> {
        let config = &record.config;
        let apart = self.isolation > Isolation::Process;
        let args = command_line(config, image);
        if args.is_empty() {
            return Err(Error::new(Reason::Invalid, "no command specified"));
        }
        let mut mounts = rootfs::host_file_mounts(sandbox_dir, &config.mounts);
        mounts.extend(config.mounts.iter().cloned());
        let control = self.cgroups.as_ref().map(|all| all.files_of(&record.id));
        let (cgroup_procs, oom_file) = control.unwrap_or_default();
        Ok(Spec {
            pause_pid: sandbox.pause.map(|pause| pause.pid),
            namespaces: sandbox.namespaces,
            new_pid: apart && config.security.namespaces.pid != NamespaceMode::Node,
            new_root: apart,
            rootfs: rootfs::kind(self.probe, self.isolation, &self.images.layers_dir(), image),
            env: environment(config, sandbox, image),
            cwd: first_of(&config.working_dir, image.config.working_dir.as_deref().unwrap_or("/")),
            user: user(&config.security, image)?,
            mounts,
            devices: config.devices.clone(),
            tty: config.tty,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            log_path: (!record.log_path.is_empty()).then(|| PathBuf::from(&record.log_path)),
            readonly_rootfs: config.security.readonly_rootfs,
            rights: rights(&config.security),
            cgroup_procs,
            oom_file,
            oom_score_adj: config.resources.oom_score_adj,
            args,
            dir,
        })
    }

    pub(super) async fn start_container(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let entry = self.container(id)?;
        let _busy = entry.busy.lock().await;
        if *entry.phase.borrow() != Phase::Created {
            let words = format!("container {id} is not in the created state");
            return Err(Error::new(Reason::FailedPrecondition, words));
        }
        if let Some(cgroups) = &self.cgroups {
            cgroups.make(id, &entry.record.config.resources);
        }
        let started = spawn_helper("shim", &entry.dir).await;
        let exited = || read_json::<Exited>(&entry.dir.join(EXITED_FILE));
        match started {
            Ok(_) => {
                let started =
                    read_json(&entry.dir.join(STARTED_FILE)).map_err(|e| failed("container", &e))?;
                entry.phase.send_replace(Phase::Running(started));
                self.watch_container(Arc::clone(&entry));
                self.announce();
                Ok(())
            }
            Err(error) => {
                let mut failed = exited().unwrap_or_else(|_| self.lost(0));
                failed.message = error.to_string();
                entry.phase.send_replace(Phase::Exited(failed));
                self.announce();
                Err(error)
            }
        }
    }

    pub(super) async fn stop_container(&self, entry: &ContainerEntry, grace: Duration) -> Result<(), Error> {
        let mut phase = entry.phase.subscribe();
        if !matches!(*phase.borrow(), Phase::Running(_)) {
            return Ok(());
        }
        if !grace.is_zero() {
            self.signal(entry, entry.record.stop_signal).await?;
            let ended = phase.wait_for(|phase| matches!(phase, Phase::Exited(_)));
            if tokio::time::timeout(grace, ended).await.is_ok() {
                return Ok(());
            }
        }
        self.signal(entry, Signal::SIGKILL as i32).await?;
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Exited(_)));
        match tokio::time::timeout(KILL_TIME_MAX, ended).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let words = format!("container {} does not end", entry.record.id);
                Err(Error::new(Reason::Timeout, words))
            }
        }
    }

    async fn signal(&self, entry: &ContainerEntry, number: i32) -> Result<(), Error> {
        match client::ask(&entry.socket(), &ShimRequest::Signal(number)).await {
            // The supervisor is gone, so the container is, or will be told to be at once.
            Err(error) if error.reason() == Reason::FailedPrecondition => Ok(()),
            other => other,
        }
    }

    pub(super) async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let Ok(entry) = self.container(id) else { return Ok(()) };
        let _busy = entry.busy.lock().await;
        self.stop_container(&entry, Duration::ZERO).await?;
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove(id).await;
        }
        let dir = entry.dir.clone();
        let removed = tokio::task::spawn_blocking(move || rootfs::remove_tree(&dir)).await;
        let removed = removed.map_err(|e| Error::new(Reason::Failed, e.to_string()))?;
        removed.map_err(|e| failed("container", &e))?;
        self.containers.lock().remove(id);
        self.announce();
        Ok(())
    }
}

/// The pod's command stands for the image's entrypoint, and its arguments for the image's command; a command without arguments
/// also hides the image's.
fn command_line(config: &ContainerConfig, image: &StoredImage) -> Vec<String> {
    let own = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let (mut line, args) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (config.command.clone(), config.args.clone()),
        (true, false) => (own(&image.config.entrypoint), config.args.clone()),
        (true, true) => (own(&image.config.entrypoint), own(&image.config.cmd)),
    };
    line.extend(args);
    line
}

fn environment(
    config: &ContainerConfig,
    sandbox: &SandboxRecord,
    image: &StoredImage,
) -> Vec<(String, String)> {
    let mut env = vec![("PATH".to_owned(), PATH.to_owned())];
    if !sandbox.config.hostname.is_empty() {
        env.push(("HOSTNAME".to_owned(), sandbox.config.hostname.clone()));
    }
    if let (false, Some(ip)) = (sandbox.namespaces.net, sandbox.ip) {
        env.push(("KUBEWRIGHT_POD_IP".to_owned(), ip.to_string()));
    }
    let of_image = image.config.env.iter().flatten();
    env.extend(of_image.filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())));
    env.extend(config.envs.iter().cloned());
    // The last value of a name counts; the place of the first is kept.
    let mut last: Vec<(String, String)> = Vec::with_capacity(env.len());
    for (name, value) in env {
        match last.iter_mut().find(|(other, _)| *other == name) {
            Some(slot) => slot.1 = value,
            None => last.push((name, value)),
        }
    }
    last
}

fn user(security: &SecurityContext, image: &StoredImage) -> Result<UserSpec, Error> {
    let number = |id: i64| {
        u32::try_from(id).map_err(|_| Error::new(Reason::Invalid, format!("{id} is no user or group id")))
    };
    let name = match (security.run_as_user, security.run_as_username.as_str()) {
        (Some(_), _) => String::new(),
        (None, "") => image.config.user.clone().unwrap_or_default(),
        (None, name) => name.to_owned(),
    };
    Ok(UserSpec {
        name,
        uid: security.run_as_user.map(number).transpose()?,
        gid: security.run_as_group.map(number).transpose()?,
        groups: security.supplemental_groups.iter().map(|gid| number(*gid)).collect::<Result<_, _>>()?,
    })
}

fn rights(security: &SecurityContext) -> Rights {
    Rights {
        privileged: security.privileged,
        no_new_privs: security.no_new_privs,
        add: security.add_capabilities.clone(),
        drop: security.drop_capabilities.clone(),
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
    }
}

/// `SIGTERM`, `TERM` or `15`.
fn stop_signal(text: Option<&str>) -> Result<i32, Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Signal::SIGTERM as i32) };
    let whole = if text.starts_with("SIG") { text.to_owned() } else { format!("SIG{text}") };
    let number = text.parse().ok().or_else(|| Signal::from_str(&whole).ok().map(|signal| signal as i32));
    number.ok_or_else(|| Error::new(Reason::Invalid, format!("the image's stop signal {text:?} is unknown")))
}

fn first_of(first: &str, second: &str) -> String {
    if first.is_empty() { second.to_owned() } else { first.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_read() {
        assert_eq!(stop_signal(None).unwrap(), 15);
        assert_eq!(stop_signal(Some("SIGQUIT")).unwrap(), 3);
        assert_eq!(stop_signal(Some("USR1")).unwrap(), 10);
        assert_eq!(stop_signal(Some("9")).unwrap(), 9);
        assert!(stop_signal(Some("SIGNOTHING")).is_err());
    }

    #[test]
    fn the_pods_words_stand_for_the_images() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let check = |command: &str, args: &str, want: &str| {
            let mut image = StoredImage::default();
            image.config.entrypoint = Some(words("entry"));
            image.config.cmd = Some(words("a b"));
            let config =
                ContainerConfig { command: words(command), args: words(args), ..ContainerConfig::default() };
            assert_eq!(command_line(&config, &image), words(want), "{command:?} {args:?}");
        };
        check("", "", "entry a b");
        check("", "c", "entry c");
        check("sh", "", "sh");
        check("sh", "c", "sh c");
    }
}
