//! The cost of filling, merging and encoding summaries: `cargo bench -p serin-sketches --bench sketches`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serin_sketches::hash::hash64;
use serin_sketches::{Buckets, CappedHist, ClassCounts, Digest, LinHist, LogHist, Summary};

/// Values per measurement: enough to hide the cost of the loop, few enough to stay in the cache.
const N: u64 = 1000;

fn unit(i: u64) -> f64 {
    (hash64(b"bench", &i.to_le_bytes()) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Lognormal-like latencies around 30 (sum of uniforms in the exponent).
fn latencies(count: u64) -> Vec<f64> {
    let normal = |i: u64| (0..6).map(|k| unit(6 * i + k)).sum::<f64>() - 3.0;
    (0..count).map(|i| 30.0 * (0.9 * normal(i)).exp()).collect()
}

fn log_hist(values: &[f64]) -> LogHist {
    let mut hist = LogHist::new();
    for &value in values {
        hist.insert(value).unwrap();
    }
    hist
}

fn inserts(c: &mut Criterion) {
    let values = latencies(N);
    let pairs: Vec<(f64, u64)> = (0..N).map(|i| (unit(i), hash64(b"dither", &i.to_le_bytes()))).collect();
    let mut group = c.benchmark_group("insert");
    group.throughput(Throughput::Elements(N));
    let mut log = log_hist(&values);
    group.bench_function("log_hist", |b| {
        b.iter(|| black_box(&values).iter().for_each(|&value| log.insert(value).unwrap()));
    });
    let mut lin = LinHist::new();
    group.bench_function("lin_hist", |b| {
        b.iter(|| black_box(&pairs).iter().for_each(|&(value, hash)| lin.insert(value, hash).unwrap()));
    });
    let mut capped = CappedHist::new(200.0).unwrap();
    group.bench_function("capped_hist", |b| {
        b.iter(|| {
            for (&value, &(_, hash)) in black_box(&values).iter().zip(&pairs) {
                capped.insert(value, hash).unwrap();
            }
        });
    });
    let mut buckets = Buckets::new();
    group.bench_function("buckets", |b| {
        b.iter(|| black_box(&pairs).iter().for_each(|&(value, hash)| buckets.insert(hash, value, 1).unwrap()));
    });
    let names: Vec<String> = (0..N).map(|i| format!("class-{}", i % 10)).collect();
    let mut classes = ClassCounts::default();
    group.bench_function("class_counts", |b| {
        b.iter(|| black_box(&names).iter().for_each(|name| classes.insert(name).unwrap()));
    });
    let mut digest = Digest::new();
    group.bench_function("digest", |b| b.iter(|| digest.insert(black_box(&values)).unwrap()));
    group.finish();
}

fn wholes(c: &mut Criterion) {
    // A million values each encode to about 400 bytes.
    let values = latencies(2_000_000);
    let (one, two) = values.split_at(1_000_000);
    let (one, two) = (Summary::Log(log_hist(one)), Summary::Log(log_hist(two)));
    let bytes = one.encode();
    println!("a log histogram of a million values: {} bytes", bytes.len());
    c.bench_function("merge/log_hist", |b| {
        b.iter_batched_ref(|| one.clone(), |one| one.merge(black_box(&two)), BatchSize::SmallInput);
    });
    c.bench_function("encode/log_hist", |b| b.iter(|| black_box(&one).encode()));
    c.bench_function("decode/log_hist", |b| b.iter(|| Summary::decode(black_box(&bytes))));
}

criterion_group!(benches, inserts, wholes);
criterion_main!(benches);
