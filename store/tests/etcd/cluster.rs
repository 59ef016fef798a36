//! Real etcd servers on loopback, for the time of a test.

use kubewright_store::EtcdTls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Cluster {
    members: Vec<Member>,
    scheme: &'static str,
    _folder: tempfile::TempDir,
}

struct Member {
    arguments: Vec<String>,
    client_port: u16,
    process: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    /// Starts the members and waits until they serve. `None`, with the reason printed, where etcd is not installed.
    pub(crate) fn start(count: usize, more: &[String]) -> Option<Cluster> {
        if let Err(error) = Command::new("etcd").arg("--version").output() {
            println!("skipped: real etcd servers because `etcd` can't be run: {error}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<_> = ports
            .iter()
            .enumerate()
            .map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}"))
            .collect();
        let scheme = if more.is_empty() { "http" } else { "https" };
        let member = |(at, (client, peer)): (usize, &(u16, u16))| {
            let client_url = format!("{scheme}://127.0.0.1:{client}");
            let peer_url = format!("http://127.0.0.1:{peer}");
            let folder = folder.path().join(format!("m{at}")).display().to_string();
            let name = format!("m{at}");
            let cluster = peers.join(",");
            let pairs = [
                ("--name", name.as_str()),
                ("--data-dir", &folder),
                ("--listen-client-urls", &client_url),
                ("--advertise-client-urls", &client_url),
                ("--listen-peer-urls", &peer_url),
                ("--initial-advertise-peer-urls", &peer_url),
                ("--initial-cluster", &cluster),
                ("--heartbeat-interval", "50"),
                ("--election-timeout", "500"),
            ];
            let mut arguments: Vec<String> =
                pairs.iter().flat_map(|(flag, value)| [(*flag).to_string(), (*value).to_string()]).collect();
            arguments.extend_from_slice(more);
            Member { arguments, client_port: *client, process: None }
        };
        let members = ports.iter().enumerate().map(member).collect();
        let mut cluster = Cluster { members, scheme, _folder: folder };
        for at in 0..count {
            cluster.spawn(at);
        }
        for at in 0..count {
            cluster.wait(at);
        }
        Some(cluster)
    }

    fn spawn(&mut self, at: usize) {
        let member = &mut self.members[at];
        let process = Command::new("etcd")
            .args(&member.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        member.process = Some(process);
    }

    /// Waits until the member takes connections and knows a leader.
    fn wait(&self, at: usize) {
        let until = Instant::now() + Duration::from_secs(30);
        let ready = || match self.scheme {
            "http" => self.metrics(at).contains("\netcd_server_has_leader 1"),
            _ => TcpStream::connect(("127.0.0.1", self.members[at].client_port)).is_ok(),
        };
        while !ready() {
            assert!(Instant::now() < until, "etcd member {at} does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn metrics(&self, at: usize) -> String {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.members[at].client_port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n");
            let _ = stream.read_to_string(&mut text);
        }
        text
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.members.iter().map(|m| format!("{}://127.0.0.1:{}", self.scheme, m.client_port)).collect()
    }

    /// Which member leads.
    pub(crate) fn leader(&self) -> usize {
        let leads = |at: &usize| self.metrics(*at).contains("\netcd_server_is_leader 1");
        (0..self.members.len()).find(leads).expect("there is a leader")
    }

    /// Kills a member at once.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts a killed member on its old data.
    pub(crate) fn restart(&mut self, at: usize) {
        self.spawn(at);
        self.wait(at);
    }

    /// Whether an etcdctl command went well.
    pub(crate) fn etcdctl(&self, command: &[&str]) -> bool {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.urls().join(",")))
            .args(command)
            .output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
        }
    }
}

/// A certificate authority with a certificate that serves both ends.
pub(crate) struct Pki {
    folder: PathBuf,
    tls: EtcdTls,
}

impl Pki {
    pub(crate) fn new(folder: &Path) -> Pki {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        let tls = EtcdTls {
            ca: ca.pem().into_bytes(),
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        };
        std::fs::create_dir_all(folder).unwrap();
        for (name, pem) in [("ca", &tls.ca), ("cert", &tls.certificate), ("key", &tls.key)] {
            std::fs::write(folder.join(format!("{name}.pem")), pem).unwrap();
        }
        Pki { folder: folder.to_owned(), tls }
    }

    /// etcd's flags for a server that asks for certificates too.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        vec![
            "--cert-file".into(),
            file("cert.pem"),
            "--key-file".into(),
            file("key.pem"),
            "--trusted-ca-file".into(),
            file("ca.pem"),
            "--client-cert-auth".into(),
        ]
    }

    pub(crate) fn client(&self) -> EtcdTls {
        self.tls.clone()
    }
}
