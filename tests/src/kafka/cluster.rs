//! Three nodes that replicate everything, and links to them that can be cut: for tests that inject faults.
//!
//! Each node is broker and controller, so one node may be down at a time. Clients of the test itself use
//! [`Cluster::bootstrap`]. Processes under test belong to a zone: they reach each node through a [`Link`] of their
//! zone, and the node advertises the address of that link to them.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{Broker, BrokerOptions, client_config, free_ports, random};
use crate::link::Link;

/// Nodes of a cluster: each partition has a replica on every one.
pub const NODES: usize = 3;

/// How often the state of the cluster is checked.
const LOOK: Duration = Duration::from_millis(200);

/// A cluster that was started here.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Broker>,
    /// By zone, then by node.
    links: Vec<Vec<Link>>,
}

impl Cluster {
    /// Starts the nodes and waits until they are ready. `zones` is the number of groups of clients with separate links.
    pub fn start(zones: usize) -> Result<Self> {
        let mut free = ports(NODES * (zones + 1))?.into_iter();
        let of_nodes: Vec<(u16, u16)> = free.by_ref().take(NODES).collect();
        let voters: Vec<String> =
            (1..).zip(&of_nodes).map(|(id, (_, controller))| format!("{id}@127.0.0.1:{controller}")).collect();
        // 22 characters of base64, as ids of clusters are written.
        let cluster = format!("{:016x}{:06x}", random(), random() & 0xff_ffff);
        let mut links: Vec<Vec<Link>> = (0..zones).map(|_| Vec::new()).collect();
        let mut listeners = vec![Vec::new(); NODES];
        for (index, (port, _)) in free.enumerate() {
            let link = Link::open(port)?;
            listeners[index % NODES].push((port, link.port()));
            links[index / NODES].push(link);
        }
        let mut nodes = Vec::new();
        for (index, ports) in of_nodes.into_iter().enumerate() {
            let properties = properties(index + 1, &voters.join(","), &listeners[index]);
            let options = BrokerOptions { properties, cluster: Some(cluster.clone()), ..BrokerOptions::default() };
            nodes.push(Broker::launch(ports, options)?);
        }
        for node in &mut nodes {
            node.start_again()?;
        }
        Ok(Self { nodes, links })
    }

    /// The address for clients of the test, which bypasses the links.
    pub fn bootstrap(&self) -> String {
        let nodes: Vec<&str> = self.nodes.iter().map(Broker::bootstrap).collect();
        nodes.join(",")
    }

    /// The address for clients of a zone, over its links.
    pub fn bootstrap_of(&self, zone: usize) -> String {
        let links: Vec<String> = self.links[zone].iter().map(|link| format!("127.0.0.1:{}", link.port())).collect();
        links.join(",")
    }

    /// A node, to be stopped and started again.
    pub fn node(&mut self, node: usize) -> &mut Broker {
        &mut self.nodes[node]
    }

    /// The link from a zone to a node, to be cut.
    pub fn link(&self, zone: usize, node: usize) -> &Link {
        &self.links[zone][node]
    }

    /// Waits until every node is up and has every record. Only then may the next node be stopped.
    pub fn wait_until_whole(&self, limit: Duration) -> Result<()> {
        let client: BaseConsumer = client_config(&self.bootstrap()).create()?;
        let deadline = Instant::now() + limit;
        loop {
            let behind = match client.fetch_metadata(None, Duration::from_secs(5)) {
                Err(error) => error.to_string(),
                Ok(metadata) if metadata.brokers().len() < NODES => format!("{} nodes", metadata.brokers().len()),
                Ok(metadata) => {
                    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions().iter());
                    match partitions.filter(|partition| partition.isr().len() < NODES).count() {
                        0 => return Ok(()),
                        behind => format!("{behind} partitions lack a replica in sync"),
                    }
                }
            };
            if Instant::now() > deadline {
                bail!("the cluster is not whole after {limit:?}: {behind}");
            }
            thread::sleep(LOOK);
        }
    }
}

/// The properties of a node of a cluster in addition to `server.properties`. `listeners`: port and advertised port, by zone.
fn properties(id: usize, voters: &str, listeners: &[(u16, u16)]) -> Vec<(String, String)> {
    let mut listen = "PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@".to_owned();
    let mut advertise = "PLAINTEXT://127.0.0.1:@PORT@".to_owned();
    let mut protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned();
    for (zone, (port, advertised)) in listeners.iter().enumerate() {
        listen = format!("{listen},ZONE{zone}://127.0.0.1:{port}");
        advertise = format!("{advertise},ZONE{zone}://127.0.0.1:{advertised}");
        protocols = format!("{protocols},ZONE{zone}:PLAINTEXT");
    }
    let (id, all) = (id.to_string(), NODES.to_string());
    let properties: [(&str, &str); 16] = [
        ("node.id", &id),
        ("controller.quorum.bootstrap.servers", ""),
        ("controller.quorum.voters", voters),
        ("listeners", &listen),
        ("advertised.listeners", &advertise),
        ("listener.security.protocol.map", &protocols),
        ("default.replication.factor", &all),
        ("offsets.topic.replication.factor", &all),
        ("transaction.state.log.replication.factor", &all),
        ("share.coordinator.state.topic.replication.factor", &all),
        ("transaction.state.log.min.isr", "2"),
        ("share.coordinator.state.topic.min.isr", "2"),
        ("min.insync.replicas", "2"),
        // Short enough to notice a frozen node soon, long enough for a node on a busy machine.
        ("broker.session.timeout.ms", "6000"),
        ("replica.lag.time.max.ms", "10000"),
        ("group.min.session.timeout.ms", "3000"),
    ];
    properties.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Returns `count` distinct pairs of adjacent free ports.
fn ports(count: usize) -> Result<Vec<(u16, u16)>> {
    let mut drawn: Vec<(u16, u16)> = Vec::new();
    for _ in 0..100 * count {
        let next = free_ports()?;
        if drawn.iter().all(|(port, _)| port.abs_diff(next.0) > 1) {
            drawn.push(next);
        }
        if drawn.len() == count {
            return Ok(drawn);
        }
    }
    bail!("no {count} pairs of free ports")
}

impl Broker {
    /// A node that is being started; [`Broker::start_again`] waits for it.
    fn launch(ports: (u16, u16), options: BrokerOptions) -> Result<Self> {
        let mut broker = Self::new(ports, options)?;
        broker.own_node()?.spawn()?;
        Ok(broker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::wait_until_serving;

    #[test]
    fn a_cluster_serves_without_one_node_and_is_whole_when_it_is_back() {
        let mut cluster = Cluster::start(1).unwrap();
        cluster.wait_until_whole(Duration::from_mins(2)).unwrap();
        wait_until_serving(&cluster.bootstrap_of(0), None).unwrap();

        cluster.node(1).stop().unwrap();
        wait_until_serving(&cluster.bootstrap_of(0), None).unwrap();
        cluster.node(1).start_again().unwrap();
        cluster.wait_until_whole(Duration::from_mins(2)).unwrap();

        cluster.node(2).shut_down(Duration::from_mins(1)).unwrap();
        assert_eq!(cluster.node(2).pid(), None);
        cluster.node(2).start_again().unwrap();
        cluster.wait_until_whole(Duration::from_mins(2)).unwrap();
    }
}
