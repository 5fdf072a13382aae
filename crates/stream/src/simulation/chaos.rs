//! Random faults.

use std::time::Duration;

use super::{Dice, Simulation};
use crate::sim::{Fate, Step};

/// Fault rates, per thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Rate at which a step of a process fails.
    pub fault: u32,
    /// Rate at which a process pauses at a step while others continue.
    pub pause: u32,
    /// Rate of events between two turns: a crash, a stop, a session timeout, a network partition, a lost or torn
    /// disk, compaction.
    pub event: u32,
    /// Longest idle time between two turns.
    pub most_idle: Duration,
}

impl Rates {
    /// Rates at which a run of some thousand turns hits everything several times.
    pub fn wild() -> Self {
        Self { fault: 25, pause: 6, event: 60, most_idle: Duration::from_millis(60) }
    }
}

/// How deep pauses nest: a process pauses, another takes over and pauses, a third continues.
const DEEPEST: usize = 3;
/// Maximum number of turns of other processes during one pause.
const LONGEST_PAUSE: usize = 60;

/// What can happen at a step.
fn fates(step: Step) -> &'static [Fate] {
    use Fate::{Dies, DiesAfter, Doubled, Late, Lost, Refused, ReplyLost};
    match step {
        Step::OpenStore | Step::ReadStore => &[Refused, Dies],
        Step::WriteStore => &[Refused, ReplyLost, Dies, DiesAfter],
        Step::Ask | Step::Assign | Step::Fetch => &[Lost, Refused, Dies],
        Step::TakeOver => &[Lost, ReplyLost, Doubled, Refused, Dies, DiesAfter],
        Step::Begin | Step::Produce | Step::Positions | Step::Commit | Step::Abort => {
            &[Lost, ReplyLost, Doubled, Late(1), Late(4), Late(20), Refused, Dies, DiesAfter]
        }
        Step::Write => &[],
    }
}

/// Whether a step works without the network.
pub(super) fn is_local(step: Step) -> bool {
    matches!(step, Step::OpenStore | Step::ReadStore | Step::WriteStore)
}

fn name(fate: Fate) -> &'static str {
    match fate {
        Fate::Works => "works",
        Fate::Lost => "lost",
        Fate::ReplyLost => "reply lost",
        Fate::Doubled => "doubled",
        Fate::Late(_) => "late",
        Fate::Refused => "refused",
        Fate::Dies => "dies",
        Fate::DiesAfter => "dies after",
    }
}

impl Simulation {
    /// Every combination of step and fate that can happen at random.
    pub fn possible() -> Vec<(Step, &'static str)> {
        use Step::{
            Abort, Ask, Assign, Begin, Commit, Fetch, OpenStore, Positions, Produce, ReadStore, TakeOver, WriteStore,
        };
        let steps =
            [OpenStore, TakeOver, ReadStore, Ask, Assign, Fetch, Begin, Produce, Positions, Commit, Abort, WriteStore];
        let mut all: Vec<_> =
            steps.into_iter().flat_map(|step| fates(step).iter().map(move |fate| (step, name(*fate)))).collect();
        all.extend(steps.map(|step| (step, "pause")));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Runs `turns` turns with all faults enabled. Calls `traffic` now and then. Failures persist until
    /// [`Self::calm`].
    pub fn run_wild(&self, turns: usize, mut traffic: impl FnMut(&Self)) {
        self.shared().wild = true;
        for _ in 0..turns {
            self.event();
            if self.dice(|dice| dice.per_mille(100)) {
                traffic(self);
            }
        }
        self.shared().wild = false;
    }

    /// Disables all faults: repairs the network, delivers delayed requests and starts all machines.
    pub fn calm(&self) {
        let count = self.0.hosts.len();
        {
            let mut shared = self.shared();
            shared.wild = false;
            shared.cut = vec![false; count];
            shared.paused = vec![false; count];
        }
        self.0.log.deliver_late();
        (0..count).for_each(|machine| self.start(machine));
    }

    /// Decides at random what happens to a process at a step.
    pub(super) fn chance(&self, _: usize, step: Step) -> Fate {
        let rates = self.0.rates;
        let pause = {
            let mut shared = self.shared();
            if !shared.wild {
                return Fate::Works;
            }
            let pause = shared.depth < DEEPEST && shared.dice.per_mille(rates.pause);
            pause.then(|| {
                *shared.happened.entry((step, "pause")).or_default() += 1;
                shared.depth += 1;
                shared.dice.range(1..LONGEST_PAUSE)
            })
        };
        if let Some(turns) = pause {
            (0..turns).for_each(|_| self.event());
            self.shared().depth -= 1;
        }
        let mut shared = self.shared();
        let fates = fates(step);
        if fates.is_empty() || !shared.dice.per_mille(rates.fault) {
            return Fate::Works;
        }
        let fate = shared.dice.one_of(fates);
        *shared.happened.entry((step, name(fate))).or_default() += 1;
        fate
    }

    /// Runs one turn of a machine, or an event that affects it.
    fn event(&self) {
        let idle = self.0.rates.most_idle.as_millis() as usize;
        let (machine, eventful, idle) = self.dice(|dice| {
            let machine = dice.range(0..self.0.hosts.len());
            (machine, dice.per_mille(self.0.rates.event), dice.range(0..idle.max(1)))
        });
        self.pass(Duration::from_millis(idle as u64));
        let is_up = self.host(machine).is_none_or(|host| host.is_up());
        if eventful {
            self.incident(machine);
        } else if !is_up {
            if self.dice(|dice| dice.per_mille(200)) {
                self.start(machine);
            }
        } else {
            self.turns(machine, 1);
        }
    }

    fn incident(&self, machine: usize) {
        match self.dice(|dice: &mut Dice| dice.range(0..16)) {
            0 | 1 => self.crash(machine),
            2 => self.stop(machine),
            3..5 => self.expel(machine),
            5 => self.cut(machine, true),
            6 | 7 => self.cut(machine, false),
            8 => self.pause(machine, true),
            9..12 => self.pause(machine, false),
            12 => {
                self.crash(machine);
                self.harm_disk(machine, SimHarm::Lose);
            }
            13 => {
                self.crash(machine);
                self.harm_disk(machine, SimHarm::Tear);
            }
            14 => self.0.log.compact(),
            _ => self.0.log.deliver_late(),
        }
    }

    fn harm_disk(&self, machine: usize, harm: SimHarm) {
        if let Some(host) = self.host(machine) {
            match harm {
                SimHarm::Lose => host.disk.lose(),
                SimHarm::Tear => host.disk.tear(),
            }
        }
    }
}

#[derive(Clone, Copy)]
enum SimHarm {
    Lose,
    Tear,
}
