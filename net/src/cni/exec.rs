//! Runs one plugin binary for one command.

use super::result::plugin_error;
use crate::{Error, Reason};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// The largest answer that is read of a plugin.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Where plugin binaries are looked for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginPaths(pub Vec<PathBuf>);

impl Default for PluginPaths {
    /// The folders of upstream's packages and of Debian's.
    fn default() -> Self {
        PluginPaths(vec![PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")])
    }
}

impl PluginPaths {
    /// The binary of a plugin type.
    ///
    /// # Errors
    /// `Unsupported` where it is in none of the folders, `Invalid` where the type is no plain name.
    pub fn find(&self, plugin: &str) -> Result<PathBuf, Error> {
        if plugin.is_empty() || plugin.contains(['/', '\\']) {
            return Err(Error::new(Reason::Invalid, format!("the plugin type {plugin:?} is no plain name")));
        }
        let mut candidates = self.0.iter().map(|folder| folder.join(plugin));
        candidates.find(|path| path.is_file()).ok_or_else(|| {
            let folders: Vec<String> = self.0.iter().map(|p| p.display().to_string()).collect();
            Error::new(
                Reason::Unsupported,
                format!("failed to find plugin {plugin:?} in path [{}]", folders.join(":")),
            )
        })
    }

    /// For `CNI_PATH`.
    fn joined(&self) -> String {
        self.0.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(":")
    }
}

/// One call of a plugin.
pub(crate) struct Call<'a> {
    pub(crate) paths: &'a PluginPaths,
    pub(crate) plugin: &'a str,
    /// `ADD`, `DEL`, `CHECK`, `STATUS`, `VERSION`.
    pub(crate) command: &'static str,
    pub(crate) container_id: &'a str,
    pub(crate) netns: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) args: &'a str,
    pub(crate) config: &'a Value,
    pub(crate) timeout: Duration,
}

impl Call<'_> {
    /// Runs the plugin; gives its answer, `Null` where it said nothing.
    ///
    /// # Errors
    /// The plugin's own, or why it could not be run.
    ///
    /// # Cancel safety
    /// A dropped call kills the plugin, which may have done part of its work; DEL cleans up.
    pub(crate) async fn run(&self) -> Result<Value, Error> {
        let run = tokio::time::timeout(self.timeout, self.spawn_and_wait());
        run.await.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs();
            let text = format!("plugin {} did not finish {} within {seconds} s", self.plugin, self.command);
            Err(Error::new(Reason::Timeout, text))
        })
    }

    async fn spawn_and_wait(&self) -> Result<Value, Error> {
        let failed = |e: std::io::Error| Error::new(Reason::Failed, format!("plugin {}: {e}", self.plugin));
        let mut child = Command::new(self.paths.find(self.plugin)?)
            .env("CNI_COMMAND", self.command)
            .env("CNI_CONTAINERID", self.container_id)
            .env("CNI_NETNS", self.netns)
            .env("CNI_IFNAME", self.interface)
            .env("CNI_ARGS", self.args)
            .env("CNI_PATH", self.paths.joined())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let config =
            serde_json::to_vec(self.config).map_err(|e| Error::new(Reason::Failed, e.to_string()))?;
        let mut stdin = child.stdin.take();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin.take() {
                // A plugin that ends without reading its input says why in its answer.
                let _ = stdin.write_all(&config).await;
            }
        };
        let read_out = async {
            match out {
                Some(out) => out.take(ANSWER_BYTES_MAX).read_to_end(&mut stdout).await.map(drop),
                None => Ok(()),
            }
        };
        let read_err = async {
            match err {
                Some(err) => err.take(ANSWER_BYTES_MAX).read_to_end(&mut stderr).await.map(drop),
                None => Ok(()),
            }
        };
        let ((), out, err) = tokio::join!(write, read_out, read_err);
        out.and(err).map_err(failed)?;
        let status = child.wait().await.map_err(failed)?;
        if !status.success() {
            return Err(plugin_error(self.plugin, &stdout, &stderr, &status.to_string()));
        }
        if stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&stdout)
            .map_err(|e| Error::new(Reason::Failed, format!("plugin {} answers no JSON: {e}", self.plugin)))
    }
}
