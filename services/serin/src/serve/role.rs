//! The roles of a process.

/// A role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Splits the traffic.
    Router,
    /// Folds events into windows.
    Aggregator,
    /// Turns windows into verdicts.
    Analyzer,
    /// Turns verdicts into weights.
    Controller,
    /// Sends events of rollouts to destinations.
    Connector,
}

impl Role {
    /// The roles of the pipeline, in the order in which they start. The connector joins them if it has destinations.
    pub(crate) const ALL: &'static [Self] = &[Self::Controller, Self::Analyzer, Self::Aggregator, Self::Router];

    /// The role's name on the command line, in metrics and in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Aggregator => "aggregator",
            Self::Analyzer => "analyzer",
            Self::Controller => "controller",
            Self::Connector => "connector",
        }
    }
}
