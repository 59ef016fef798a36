//! What the fake runtime does.

use super::*;
use crate::port::*;
use futures::{SinkExt, StreamExt};
use jiff::Timestamp;
use kubewright_core::ManualClock;
use kubewright_core::streams::{ExecInput, ExecOutput};

fn fake(config: FakeConfig, seed: u64) -> (FakeRuntime, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_000_000).unwrap()));
    (FakeRuntime::new(config, clock.clone(), seed), clock)
}

async fn start(runtime: &FakeRuntime, image: &str) -> (String, String) {
    let sandbox = PodSandboxConfig::default();
    let sandbox_id = runtime.run_pod_sandbox(&sandbox, "").await.unwrap();
    let config = ContainerConfig {
        image: runtime.pull_image(image, None).await.unwrap(),
        user_specified_image: image.to_owned(),
        ..ContainerConfig::default()
    };
    let id = runtime.create_container(&sandbox_id, &config, &sandbox).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    (sandbox_id, id)
}

#[tokio::test]
async fn a_container_ends_when_the_clock_says_so() {
    let config =
        FakeConfig::default().with_behaviour("job", Behaviour::exits_after(Duration::from_secs(5), 3));
    let (runtime, clock) = fake(config, 1);
    let (_, id) = start(&runtime, "job:1").await;
    assert_eq!(runtime.container_status(&id).await.unwrap().state, ContainerState::Running);
    clock.advance(Duration::from_secs(5));
    let ended = runtime.container_status(&id).await.unwrap();
    assert_eq!((ended.state, ended.exit_code, ended.reason.as_str()), (ContainerState::Exited, 3, "Error"));
    assert_eq!(ended.finished_at - ended.started_at, 5_000_000_000);
}

#[tokio::test]
async fn one_seed_gives_one_history() {
    let (a, _) = fake(FakeConfig::default(), 7);
    let (b, _) = fake(FakeConfig::default(), 7);
    assert_eq!(start(&a, "x").await, start(&b, "x").await);
    assert_ne!(start(&a, "x").await, start(&fake(FakeConfig::default(), 8).0, "x").await);
}

#[tokio::test]
async fn faults_fail_calls() {
    let (runtime, _) = fake(FakeConfig::default(), 1);
    runtime.set_faults(Some(Arc::new(|method| {
        (method == "RunPodSandbox").then(|| Error::new(Reason::TryAgain, "out of order"))
    })));
    let refused = runtime.run_pod_sandbox(&PodSandboxConfig::default(), "").await;
    assert_eq!(refused.unwrap_err().reason(), Reason::TryAgain);
    assert!(runtime.version().await.is_ok());
    assert_eq!(runtime.counts(), (0, 0));
}

#[tokio::test]
async fn addresses_are_used_up_and_given_back() {
    let (runtime, _) = fake(FakeConfig { pod_addresses: 2, ..FakeConfig::default() }, 1);
    let run = async || runtime.run_pod_sandbox(&PodSandboxConfig::default(), "").await;
    let first = run().await.unwrap();
    run().await.unwrap();
    assert_eq!(run().await.unwrap_err().reason(), Reason::TryAgain);
    let ip = runtime.pod_sandbox_status(&first).await.unwrap().ips;
    runtime.remove_pod_sandbox(&first).await.unwrap();
    let third = run().await.unwrap();
    assert_eq!(runtime.pod_sandbox_status(&third).await.unwrap().ips, ip);
}

#[tokio::test(start_paused = true)]
async fn changes_tell_of_calls_and_of_ends() {
    let config =
        FakeConfig::default().with_behaviour("job", Behaviour::exits_after(Duration::from_secs(5), 0));
    let (runtime, clock) = fake(config, 1);
    let mut changes = runtime.changes().unwrap();
    let (_, _) = start(&runtime, "job:1").await;
    changes.next().await.unwrap();
    clock.advance(Duration::from_secs(6));
    changes.next().await.unwrap();
    drop(runtime);
    assert_eq!(changes.next().await, None);
}

#[tokio::test]
async fn streams_answer() {
    let (runtime, _) = fake(FakeConfig::default(), 1);
    let (sandbox, id) = start(&runtime, "x").await;
    let result = runtime.exec_sync(&id, vec!["false".into()], Duration::ZERO).await.unwrap();
    assert_eq!(result.exit_code, 1);
    let options = StreamOptions { command: vec!["cat".into()], stdin: true, ..StreamOptions::default() };
    let mut session = runtime.exec(&id, options).await.unwrap();
    session.input.send(ExecInput::Stdin("hi".into())).await.unwrap();
    session.input.send(ExecInput::CloseStdin).await.unwrap();
    let frames: Vec<_> = session.output.by_ref().collect().await;
    assert_eq!(frames, [ExecOutput::Stdout("hi".into()), ExecOutput::Exit(Ok(0))]);
    let mut echo = runtime.port_forward(&sandbox, 80).await.unwrap();
    echo.sender.send(Ok("ping".into())).await.unwrap();
    assert_eq!(echo.receiver.next().await.unwrap().unwrap(), "ping");
    runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let refused = runtime.exec_sync(&id, vec!["true".into()], Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::FailedPrecondition);
}

#[tokio::test]
async fn a_failed_pull_says_so() {
    let (runtime, _) = fake(FakeConfig { unpullable: vec!["bad".into()], ..FakeConfig::default() }, 1);
    assert_eq!(runtime.pull_image("bad:1", None).await.unwrap_err().reason(), Reason::NotFound);
    assert_eq!(runtime.pull_image("UPPER", None).await.unwrap_err().reason(), Reason::Invalid);
    assert!(runtime.image_status("bad:1").await.unwrap().is_none());
}

#[tokio::test]
async fn the_suite_passes() {
    use crate::conformance::{Capabilities, Factory, Subject, run};
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().to_owned();
    let factory: Factory = Arc::new(move || {
        let (runtime, _) = fake(FakeConfig::default(), 1);
        let subject = Subject {
            runtime: Arc::new(runtime.clone()),
            images: Arc::new(runtime),
            capabilities: Capabilities::default(),
            image: "busybox:1".to_owned(),
            echo_server: vec!["echo".to_owned()],
            directory: directory.clone(),
        };
        Box::pin(async move { subject })
    });
    let report = run(factory).await;
    assert!(report.is_success(), "{report}");
}
