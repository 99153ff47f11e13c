//! tmp
mod allocations;
mod basalt;
mod cluster;
mod raft_rs;
mod state_machine;
use std::time::Instant;
fn go<N: cluster::Node>(size: usize, batch: usize) {
    let mut c = cluster::Cluster::<N>::new();
    let template = vec![7u8; size];
    let mut n = 0u64;
    let mut round = |c: &mut cluster::Cluster<N>| {
        c.round((0..batch).map(|_| { let mut v = template.clone(); n += 1; v[..8].copy_from_slice(&n.to_le_bytes()); v }));
    };
    for _ in 0..(20000/batch).max(1) { round(&mut c); }
    let rounds = (400_000 / batch).max(1);
    let t = Instant::now();
    for _ in 0..rounds { round(&mut c); }
    let s = t.elapsed().as_secs_f64();
    let k = (rounds*batch) as f64;
    let rounds = (40_000 / batch).max(1);
    let (a, b) = allocations::during(|| for _ in 0..rounds { round(&mut c); });
    let kk = (rounds*batch) as f64;
    println!("{:20} {size} {batch}: {:.3} M/s {:.3} us, {:.2} allocs {:.0} bytes", N::NAME, k/s/1e6, s/k*1e6, a as f64/kk, b as f64/kk);
}
fn main() {
    for size in [64, 256] { for batch in [1,16,256,1024] { go::<raft_rs::RaftRs<raft_rs::Log>>(size, batch); go::<raft_rs::RaftRs<raft::storage::MemStorage>>(size, batch); go::<basalt::Basalt>(size, batch); } }
}
