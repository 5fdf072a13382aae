//! The simulated machines of the failure table.

use std::{sync::Arc, time::Duration};

use serin_stream::{
    conformance::{
        DELETE, at,
        counting::{Counting, UNUSABLE, expected},
        outgoing, read_all, topic, values, write,
    },
    fold::FoldFactory,
    log::Log as _,
    record::Target,
    sim::{Flaw, SimLog},
    simulation::{Program, Rates, Setup, Simulation},
    task::TaskOptions,
};
use serin_topology::Cleanup;

/// Two machines. The first one has the only partition.
pub(crate) struct Rig {
    pub(crate) simulation: Simulation,
    pub(crate) fed: Vec<(String, String)>,
}

impl Rig {
    fn new() -> Self {
        Self::with(quick())
    }

    pub(crate) fn with(task: TaskOptions) -> Self {
        Self::reading(&["in"], task)
    }

    pub(crate) fn reading(inputs: &'static [&'static str], task: TaskOptions) -> Self {
        let mut topics = ["in", "more", "out"].map(|name| topic(name, 1, DELETE)).to_vec();
        topics.push(changelog());
        topics.push(topic("dead-letters", 1, DELETE));
        let program: Program = Arc::new(move |_: &SimLog| vec![Arc::new(Counting { inputs }) as Arc<dyn FoldFactory>]);
        let machines = vec![program; 2];
        let setup = Setup { seed: 1, topics, machines, task, rates: Rates::default(), flaw: Flaw::None };
        Self { simulation: Simulation::new(setup), fed: Vec::new() }
    }

    /// A rig that has processed some records.
    pub(crate) fn busy() -> Self {
        let mut rig = Self::new();
        rig.feed(20);
        rig.settle();
        rig
    }

    pub(crate) fn log(&self) -> &SimLog {
        self.simulation.log()
    }

    pub(crate) fn feed(&mut self, count: usize) {
        self.feed_values((0..count).map(|n| if n % 7 == 3 { "forget" } else { "v" }));
    }

    pub(crate) fn feed_values<'a>(&mut self, values: impl IntoIterator<Item = &'a str>) {
        let first = self.fed.len();
        let pair = |(n, value): (usize, &str)| (format!("k{}", n % 5), value.to_owned());
        self.fed.extend(values.into_iter().enumerate().map(pair));
        let records = self.fed[first..].iter().map(|(key, value)| outgoing("in", Target::ByKey, key, value));
        write(self.log(), records).unwrap();
    }

    pub(crate) fn outputs(&self) -> Vec<String> {
        values(&read_all(self.log(), "out", 0).unwrap())
    }

    pub(crate) fn rows(&self, machine: usize) -> usize {
        self.simulation.disk(machine).rows("counter", 0).len()
    }

    /// Runs the first machine until all scheduled events have happened.
    pub(crate) fn until_it_happened(&self) {
        for _ in 0..1000 {
            if self.simulation.orders_are_done() {
                return;
            }
            self.simulation.turns(0, 1);
        }
        panic!("it did not happen");
    }

    /// Runs until everything is consumed and committed.
    pub(crate) fn settle(&self) {
        let done = |simulation: &Simulation| {
            let place = at(simulation.log(), "in", 0);
            let (_, end) = simulation.log().bounds(&place).unwrap();
            simulation.log().committed("counter", &place).unwrap() == Some(end)
        };
        self.simulation.settle("everything is consumed", done).unwrap();
    }

    /// Checks that all machines continue and the outputs are correct.
    pub(crate) fn ends_well(mut self) {
        assert!(self.simulation.orders_are_done());
        self.simulation.calm();
        self.feed(5);
        self.settle();
        assert_eq!(self.outputs(), expected(&self.fed));
        let bad = self.fed.iter().filter(|(_, value)| UNUSABLE.contains(&value.as_str())).count();
        assert_eq!(read_all(self.log(), "dead-letters", 0).unwrap().len(), bad);
    }

    /// Checks that the task stops with an error that contains all of `parts`, and writes nothing more.
    pub(crate) fn stops(self, parts: &[&str]) {
        let before = self.outputs();
        self.simulation.settle("a failure", |simulation| !simulation.failures().is_empty()).unwrap();
        let failures = self.simulation.failures();
        assert_eq!(failures.len(), 1, "{failures:?}");
        for part in parts {
            assert!(failures[0].contains(part), "{part:?} is missing in: {}", failures[0]);
        }
        (0..2).for_each(|machine| self.simulation.turns(machine, 50));
        assert_eq!(self.outputs(), before);
    }
}

pub(crate) fn quick() -> TaskOptions {
    TaskOptions { commit_every: Duration::from_millis(20), batch: 3, ..TaskOptions::default() }
}

pub(crate) fn changelog() -> serin_topology::TopicSpec {
    topic("counter-changelog", 1, Cleanup::Compact)
}
