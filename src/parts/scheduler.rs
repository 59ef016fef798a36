//! The scheduler as a part of a control plane.

use super::{Part, controller};
use crate::error::BuildError;
use crate::plane::Builder;
use kubewright_controllers::scheduling;
use kubewright_sched::{Configuration, Plugin, Profile, ProfileBuilder, QueueOptions, Registry, Scheduler};
use std::sync::Arc;

/// The scheduler, with profiles made anew at each start of its controller. What is wrong with them is told when the plane is built.
pub fn scheduler(profiles: impl Fn() -> Vec<ProfileBuilder> + Send + Sync + 'static) -> impl Part {
    move |builder: &mut Builder| {
        if let Err(wrong) = make(profiles(), 0) {
            builder.errors.extend(wrong);
            return;
        }
        let part = controller("scheduler", move |cx| {
            let entropy = cx.entropy.clone();
            Some(scheduling(move || {
                make(profiles(), entropy.next_u64())
                    .expect("the same profiles were right when the plane was built")
            }))
        });
        part.add(builder);
    }
}

/// The default scheduler with one more plugin, made anew at each start of its controller.
pub fn scheduler_with<P: Plugin>(plugin: impl Fn() -> P + Send + Sync + 'static) -> impl Part {
    scheduler(move || vec![Profile::defaults("default-scheduler").plugin(plugin())])
}

/// The scheduler as a KubeSchedulerConfiguration describes it, with its profiles, its back-off and its HTTP extenders; `registry` knows the
/// plugins that it may name. What is wrong with it is told when the plane is built.
pub fn scheduler_from(
    config: Configuration,
    registry: impl Fn() -> Registry + Send + Sync + 'static,
) -> impl Part {
    let shared = Arc::new((config, registry));
    move |builder: &mut Builder| {
        if let Err(wrong) = shared.0.scheduler(&(shared.1)(), 0) {
            let told = wrong.iter().map(|e| BuildError::Invalid(format!("the scheduler: {e}")));
            builder.errors.extend(told);
            return;
        }
        let shared = shared.clone();
        let part = controller("scheduler", move |cx| {
            let (entropy, shared) = (cx.entropy.clone(), shared.clone());
            Some(scheduling(move || {
                let made = shared.0.scheduler(&(shared.1)(), entropy.next_u64());
                made.expect("the same configuration was right when the plane was built")
            }))
        });
        part.add(builder);
    }
}

/// A scheduler, or everything that is wrong with its profiles.
fn make(builders: Vec<ProfileBuilder>, seed: u64) -> Result<Scheduler, Vec<BuildError>> {
    let (mut profiles, mut wrong) = (Vec::new(), Vec::new());
    for (at, builder) in builders.into_iter().enumerate() {
        match builder.build() {
            Ok(profile) => profiles.push(profile),
            Err(errors) => {
                wrong.extend(errors.iter().map(|e| format!("profile {} of the scheduler: {e}", at + 1)))
            }
        }
    }
    if wrong.is_empty() {
        match Scheduler::new(profiles, QueueOptions::default(), seed) {
            Ok(scheduler) => return Ok(scheduler),
            Err(e) => wrong.push(format!("the scheduler: {e}")),
        }
    }
    Err(wrong.into_iter().map(BuildError::Invalid).collect())
}
