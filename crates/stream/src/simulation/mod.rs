//! A seeded simulation of machines that run stages on a [`SimLog`]: one thread, its own clock, and faults at every
//! step.
//!
//! Machines take turns. At each step of each process ([`Step`]) one of three things may happen first: an event that a
//! test has scheduled ([`Simulation::at_next`], [`Simulation::meanwhile`]), a random fault, or a pause in which all
//! other machines continue. A pause can produce a zombie: a process that wakes up after others have taken over. The
//! seed determines everything.

mod chaos;
mod dice;
mod host;
mod seeds;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, TryLockError, Weak},
    time::Duration,
};

use serin_topology::TopicSpec;

use self::host::Host;
pub use self::{chaos::Rates, dice::Dice, host::Program, seeds::each_seed};
use crate::{
    clock::{Clock as _, ManualClock},
    local::lock,
    log::{Log as _, Membership},
    sim::{Fate, Flaw, SimDisk, SimLog, Step, World},
    task::TaskOptions,
};

/// Start time of a simulation, in milliseconds since the epoch.
const BEGIN_MS: i64 = 1_700_000_000_000;

/// Parameters of a simulation.
pub struct Setup {
    /// The seed, which determines everything.
    pub seed: u64,
    /// The topics of the simulated log.
    pub topics: Vec<TopicSpec>,
    /// The program of each machine.
    pub machines: Vec<Program>,
    /// Options of the tasks.
    pub task: TaskOptions,
    /// Rates of random faults.
    pub rates: Rates,
    /// A defect of the cluster, to test that the simulation detects it.
    pub flaw: Flaw,
}

/// An action of a test while a process is at a step.
type Act = Box<dyn FnOnce(&Simulation) + Send>;

/// A scheduled event at the next time that a process reaches a step.
enum Order {
    Fate(Fate),
    Meanwhile(Act),
}

/// A running simulation. Clones share it.
#[derive(Clone)]
pub struct Simulation(Arc<Inner>);

struct Inner {
    clock: Arc<ManualClock>,
    log: SimLog,
    hosts: Vec<Mutex<Host>>,
    shared: Mutex<Shared>,
    rates: Rates,
}

/// State that is accessed while a host is in the middle of an action.
struct Shared {
    dice: Dice,
    orders: Vec<(usize, Step, Order)>,
    /// Memberships of each machine's process, including one that died without the group knowing.
    members: Vec<Vec<Arc<dyn Membership>>>,
    cut: Vec<bool>,
    paused: Vec<bool>,
    wild: bool,
    depth: usize,
    happened: BTreeMap<(Step, &'static str), u64>,
}

/// Forwards the steps of processes to the simulation.
#[derive(Clone)]
struct Hook(Weak<Inner>);

impl World for Hook {
    fn at(&self, process: &str, step: Step) -> Fate {
        let Some(inner) = self.0.upgrade() else { return Fate::Works };
        let simulation = Simulation(inner);
        let number = process.parse().unwrap_or(usize::MAX);
        simulation.at(number, step)
    }
}

impl Simulation {
    /// Creates the topics and starts all machines.
    ///
    /// # Panics
    /// If the topics cannot be created.
    pub fn new(setup: Setup) -> Self {
        let clock = Arc::new(ManualClock::at(BEGIN_MS));
        let log = SimLog::simulated(Arc::clone(&clock), setup.flaw);
        log.create(&setup.topics).expect("topics in memory");
        let count = setup.machines.len();
        let host = |(number, program): (usize, Program)| {
            // A machine's name is its number.
            Mutex::new(Host::new(&number.to_string(), program, setup.task.clone()))
        };
        let hosts = setup.machines.into_iter().enumerate().map(host).collect();
        let shared = Shared {
            dice: Dice::new(setup.seed),
            orders: Vec::new(),
            members: (0..count).map(|_| Vec::new()).collect(),
            cut: vec![false; count],
            paused: vec![false; count],
            wild: false,
            depth: 0,
            happened: BTreeMap::new(),
        };
        let simulation = Self(Arc::new(Inner { clock, log, hosts, shared: Mutex::new(shared), rates: setup.rates }));
        (0..count).for_each(|machine| simulation.start(machine));
        simulation
    }

    /// The log without faults.
    pub fn log(&self) -> &SimLog {
        &self.0.log
    }

    /// The wall clock of all machines, in milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }

    /// Advances the clock.
    pub fn pass(&self, time: Duration) {
        self.0.clock.advance(time);
    }

    /// Uses the random generator.
    pub fn dice<T>(&self, throw: impl FnOnce(&mut Dice) -> T) -> T {
        throw(&mut self.shared().dice)
    }

    /// Schedules `fate` for the next time that the process of `machine` reaches `step`. Several events for one step
    /// happen one after another.
    pub fn at_next(&self, machine: usize, step: Step, fate: Fate) {
        self.shared().orders.push((machine, step, Order::Fate(fate)));
    }

    /// Runs `act` the next time that the process of `machine` reaches `step`, while the process is paused.
    pub fn meanwhile(&self, machine: usize, step: Step, act: impl FnOnce(&Self) + Send + 'static) {
        self.shared().orders.push((machine, step, Order::Meanwhile(Box::new(act))));
    }

    /// Whether all scheduled events have happened.
    pub fn orders_are_done(&self) -> bool {
        self.shared().orders.is_empty()
    }

    /// Starts the process of a machine that has none. Within the session timeout of the previous process, the new one
    /// gets its partitions.
    pub fn start(&self, machine: usize) {
        let Some(mut host) = self.host(machine).filter(|host| !host.is_up()) else { return };
        let ghosts = std::mem::take(&mut self.shared().members[machine]);
        let members = host.start(&self.0.log, Hook(Arc::downgrade(&self.0)), ghosts);
        self.shared().members[machine] = members;
    }

    /// Kills the process of a machine (`kill -9`). The group notices when its session times out: [`Self::expel`].
    pub fn crash(&self, machine: usize) {
        if let Some(mut host) = self.host(machine) {
            let mut shared = self.shared();
            host.crash(&mut shared.dice);
        }
    }

    /// Stops the process of a machine, like SIGTERM.
    pub fn stop(&self, machine: usize) {
        if let Some(mut host) = self.host(machine) {
            host.stop();
            let left = std::mem::take(&mut self.shared().members[machine]);
            drop(left);
        }
    }

    /// Pauses the process of a machine (SIGSTOP), or continues it.
    pub fn pause(&self, machine: usize, paused: bool) {
        self.shared().paused[machine] = paused;
    }

    /// Lets the session of a machine's process time out. Its partitions are reassigned at once.
    pub fn expel(&self, machine: usize) {
        let members = self.shared().members[machine].clone();
        for member in members {
            self.0.log.expel(member.as_ref());
        }
        if self.host(machine).is_some_and(|host| !host.is_up()) {
            self.shared().members[machine].clear();
        }
    }

    /// Cuts or repairs the network between a machine and the log.
    pub fn cut(&self, machine: usize, cut: bool) {
        self.shared().cut[machine] = cut;
    }

    /// The disk of a machine, for inspection and damage.
    ///
    /// # Panics
    /// If the machine is in the middle of an action.
    pub fn disk(&self, machine: usize) -> SimDisk {
        self.host(machine).expect("the machine is not in the middle of an action").disk.clone()
    }

    /// Runs `turns` turns of a machine. A machine that is paused or in the middle of an action does not move.
    pub fn turns(&self, machine: usize, turns: usize) {
        for _ in 0..turns {
            if self.shared().paused[machine] {
                return;
            }
            let Some(mut host) = self.host(machine) else { return };
            host.turn(&self.0.clock, &mut |count| self.dice(|dice| dice.range(0..count)));
            if host.is_dead() {
                host.crash(&mut self.shared().dice);
            }
            drop(host);
            self.pass(Duration::from_millis(5));
        }
    }

    /// Gives all machines turns until `done` returns true. Fails after many turns.
    pub fn settle(&self, what: &str, mut done: impl FnMut(&Self) -> bool) -> Result<(), String> {
        for _ in 0..20_000 {
            if done(self) {
                return Ok(());
            }
            (0..self.0.hosts.len()).for_each(|machine| self.turns(machine, 1));
            self.pass(Duration::from_millis(20));
        }
        Err(format!("never: {what}; failures: {:?}", self.failures()))
    }

    /// Errors that need an operator.
    pub fn failures(&self) -> Vec<String> {
        self.0.hosts.iter().filter_map(|host| host.try_lock().ok()).flat_map(|host| host.failures()).collect()
    }

    /// The random faults that have happened, by step, with their counts.
    pub fn happened(&self) -> BTreeMap<(Step, &'static str), u64> {
        self.shared().happened.clone()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.0.shared)
    }

    /// A machine, unless it is in the middle of an action.
    fn host(&self, machine: usize) -> Option<MutexGuard<'_, Host>> {
        match self.0.hosts.get(machine)?.try_lock() {
            Ok(host) => Some(host),
            Err(TryLockError::Poisoned(host)) => Some(host.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn at(&self, machine: usize, step: Step) -> Fate {
        let order = {
            let mut shared = self.shared();
            let found = shared.orders.iter().position(|(target, at, _)| (*target, *at) == (machine, step));
            found.map(|index| shared.orders.remove(index).2)
        };
        match order {
            Some(Order::Fate(fate)) => return fate,
            Some(Order::Meanwhile(act)) => act(self),
            None => {}
        }
        if self.shared().cut.get(machine) == Some(&true) && !chaos::is_local(step) {
            // A reader gets an error; all other requests time out.
            return if step == Step::Fetch { Fate::Refused } else { Fate::Lost };
        }
        self.chance(machine, step)
    }
}
