//! A profile: the plugins of one scheduler name, in order, with their weights.

use crate::framework::{Locality, Plugin, Points};
use crate::plugins;
use smol_str::SmolStr;
use std::fmt;

/// Why a profile can't be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileError {
    /// Two plugins have this name.
    Duplicate(&'static str),
    /// No plugin orders the queue.
    NoQueueSort,
    /// These plugins both order the queue.
    TwoQueueSorts(&'static str, &'static str),
    /// No plugin binds.
    NoBind,
    /// A weight of a plugin that does not score, or of no plugin of the profile.
    Weight(String),
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProfileError::Duplicate(name) => write!(f, "the plugin {name} is there twice"),
            ProfileError::NoQueueSort => f.write_str("no plugin orders the queue (QueueSort)"),
            ProfileError::TwoQueueSorts(a, b) => write!(f, "{a} and {b} both order the queue (QueueSort)"),
            ProfileError::NoBind => f.write_str("no plugin binds (Bind)"),
            ProfileError::Weight(name) => write!(f, "a weight is given for {name}, which does not score"),
        }
    }
}

impl std::error::Error for ProfileError {}

/// The plugins of one scheduler name.
pub struct Profile {
    name: SmolStr,
    plugins: Vec<(Box<dyn Plugin>, i64)>,
    /// Which of them orders the queue.
    sorter: usize,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.plugins.iter().map(|(p, _)| p.name()).collect();
        f.debug_struct("Profile").field("name", &self.name).field("plugins", &names).finish()
    }
}

/// Collects the plugins of a [`Profile`].
pub struct ProfileBuilder {
    name: SmolStr,
    plugins: Vec<(Box<dyn Plugin>, i64)>,
    weights: Vec<(String, i64)>,
}

impl ProfileBuilder {
    /// Adds a plugin, after those that are there, with weight 1.
    #[must_use]
    pub fn plugin(mut self, plugin: impl Plugin) -> Self {
        self.plugins.push((Box::new(plugin), 1));
        self
    }

    /// Adds a boxed plugin.
    #[must_use]
    pub fn boxed(mut self, plugin: Box<dyn Plugin>) -> Self {
        self.plugins.push((plugin, 1));
        self
    }

    /// Sets the weight of a plugin's scores.
    #[must_use]
    pub fn weight(mut self, plugin: &str, weight: i64) -> Self {
        self.weights.push((plugin.to_owned(), weight));
        self
    }

    /// Leaves a plugin out.
    #[must_use]
    pub fn without(mut self, plugin: &str) -> Self {
        self.plugins.retain(|(p, _)| p.name() != plugin);
        self
    }

    /// The profile.
    ///
    /// # Errors
    /// Every mistake in it, not only the first.
    pub fn build(mut self) -> Result<Profile, Vec<ProfileError>> {
        let mut errors = Vec::new();
        for (at, (plugin, _)) in self.plugins.iter().enumerate() {
            if self.plugins[..at].iter().any(|(p, _)| p.name() == plugin.name()) {
                errors.push(ProfileError::Duplicate(plugin.name()));
            }
        }
        let with = |points: Points| {
            let found = self.plugins.iter().filter(move |(p, _)| p.points().contains(points));
            found.map(|(p, _)| p.name()).collect::<Vec<_>>()
        };
        match with(Points::QUEUE_SORT).as_slice() {
            [] => errors.push(ProfileError::NoQueueSort),
            [_] => {}
            [a, b, ..] => errors.push(ProfileError::TwoQueueSorts(a, b)),
        }
        if with(Points::BIND).is_empty() {
            errors.push(ProfileError::NoBind);
        }
        for (name, weight) in std::mem::take(&mut self.weights) {
            let scores = |p: &dyn Plugin| p.name() == name && p.points().contains(Points::SCORE);
            match self.plugins.iter_mut().find(|(p, _)| scores(p.as_ref())) {
                Some((_, present)) => *present = weight,
                None => errors.push(ProfileError::Weight(name)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let sorter = self.plugins.iter().position(|(p, _)| p.points().contains(Points::QUEUE_SORT));
        Ok(Profile { name: self.name, plugins: self.plugins, sorter: sorter.unwrap_or(0) })
    }
}

impl Profile {
    /// A profile without plugins, for pods whose `spec.schedulerName` is `name`.
    pub fn builder(name: &str) -> ProfileBuilder {
        ProfileBuilder { name: name.into(), plugins: Vec::new(), weights: Vec::new() }
    }

    /// Upstream's default plugins and weights (those that this crate has), for `name`.
    pub fn defaults(name: &str) -> ProfileBuilder {
        let mut builder = Self::builder(name);
        for (plugin, weight) in plugins::defaults() {
            builder.plugins.push((plugin, weight));
        }
        builder
    }

    /// The scheduler name.
    pub fn name(&self) -> &SmolStr {
        &self.name
    }

    /// The plugins with their weights, in order.
    pub fn plugins(&self) -> impl Iterator<Item = (&dyn Plugin, i64)> {
        self.plugins.iter().map(|(plugin, weight)| (plugin.as_ref(), *weight))
    }

    pub(crate) fn plugins_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn Plugin>> {
        self.plugins.iter_mut().map(|(plugin, _)| plugin)
    }

    /// The plugins that look beyond one node, with their places.
    pub(crate) fn cluster_plugins(&self) -> impl Iterator<Item = (usize, &dyn Plugin)> {
        let plugins = self.plugins().enumerate();
        plugins.filter(|(_, (p, _))| p.locality() == Locality::Cluster).map(|(at, (p, _))| (at, p))
    }

    /// The plugins with an extension point.
    pub(crate) fn at(&self, points: Points) -> impl Iterator<Item = &dyn Plugin> {
        self.plugins().map(|(p, _)| p).filter(move |p| p.points().contains(points))
    }

    /// The plugin that orders the queue.
    pub(crate) fn sorter(&self) -> Option<&dyn Plugin> {
        self.plugins.get(self.sorter).map(|(p, _)| p.as_ref())
    }

    /// The plugin of this name.
    pub(crate) fn find(&self, name: &str) -> Option<&dyn Plugin> {
        self.plugins().map(|(p, _)| p).find(|p| p.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::PrioritySort;

    #[test]
    fn every_mistake_is_reported() {
        assert!(Profile::defaults("a").build().is_ok());
        let errors = Profile::builder("a").plugin(PrioritySort).plugin(PrioritySort).weight("X", 2).build();
        assert_eq!(
            errors.unwrap_err(),
            [
                ProfileError::Duplicate("PrioritySort"),
                ProfileError::TwoQueueSorts("PrioritySort", "PrioritySort"),
                ProfileError::NoBind,
                ProfileError::Weight("X".to_owned()),
            ]
        );
    }
}
