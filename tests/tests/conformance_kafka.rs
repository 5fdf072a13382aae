//! The conformance suite of logs on a real Kafka: the same cases as for the embedded log and the log in memory.

use std::{any::Any, sync::Arc, time::Duration};

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serin_stream::{
    conformance::{Bench, CASE_TIMEOUT},
    kafka::{KafkaLog, KafkaOptions},
    log::Log,
};
use serin_tests::kafka::{Broker, client_config, unique_prefix};

/// A separate prefix on the shared broker.
struct Kafka {
    bootstrap: String,
    prefix: String,
    log: KafkaLog,
}

impl Kafka {
    fn new() -> Self {
        let broker = Broker::shared().expect("a broker");
        let (bootstrap, prefix) = (broker.bootstrap().to_owned(), unique_prefix("conformance"));
        let log = KafkaLog::connect(&KafkaOptions::new(&bootstrap, &prefix)).expect("the broker answers");
        Self { bootstrap, prefix, log }
    }
}

impl Bench for Kafka {
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    fn restart(&mut self) -> bool {
        self.log = KafkaLog::connect(&KafkaOptions::new(&self.bootstrap, &self.prefix)).expect("the broker answers");
        true
    }

    fn open_transaction(&self, id: &str, topic: &str, value: &str) -> Option<Box<dyn Any>> {
        let mut config = client_config(&self.bootstrap);
        config.set("transactional.id", format!("{}{id}", self.prefix));
        let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
        producer.init_transactions(CASE_TIMEOUT).expect("the id is ours");
        producer.begin_transaction().expect("a transaction");
        let topic = format!("{}{topic}", self.prefix);
        let record = BaseRecord::to(&topic).partition(0).key("k").payload(value);
        producer.send(record).map_err(|(error, _)| error).expect("it is queued");
        while producer.in_flight_count() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(Box::new(producer))
    }
}

serin_stream::conformance!(Kafka::new());
