//! What goes wrong, and how it ends.

use std::sync::Arc;

use basalt_engine::fs::{
    SimFs,
    sim::{Failure, OpKind, Survival},
};
use basalt_proto::raft_cmdpb::{
    AdminCmdType, AdminRequest, ChangePeerRequest, RaftCmdRequest, RaftRequestHeader,
    TransferLeaderRequest,
};
use basalt_raft::eraftpb::ConfChangeType;
use basalt_raftstore::Callback;

use super::{
    node::{Trap, peer},
    world::{Check, Event, MILLI, SECOND, World},
};

impl World {
    /// A look of mischief: each kind may strike.
    pub(crate) fn mischief(&mut self) -> Check {
        if self.kind {
            return Ok(());
        }
        let often = self.plan.mischief.clone();
        let n = self.rng.index(self.nodes.len());
        let mut strikes = |odds: u64| self.rng.below(1_000) < odds * 3;
        let [
            wipe,
            crash,
            pause,
            partition,
            weather,
            slow,
            bad,
            transfer,
            member,
            flush,
        ] = [
            strikes(often.wipe),
            strikes(often.crash),
            strikes(often.pause),
            strikes(often.partition),
            strikes(often.weather),
            strikes(often.slow_disk),
            strikes(often.bad_disk),
            strikes(often.transfer),
            strikes(often.member),
            strikes(often.flush),
        ];
        if crash {
            self.counts.crashes += 1;
            match self.rng.below(6) {
                0 => (0..self.nodes.len()).for_each(|n| self.crash(n)),
                1 | 2 => self.crash(n),
                _ if self.nodes[n].trap.is_none() => {
                    let (left, how) = (self.rng.below(40), self.survival());
                    let trap = Trap::set(&self.nodes[n].fs, left, how);
                    self.nodes[n].trap = Some(trap);
                }
                _ => {}
            }
        }
        if wipe {
            self.wipe(n);
        }
        if pause && self.nodes[n].running.is_some() {
            self.counts.pauses += 1;
            // Some outlast an election.
            let most = *self.rng.pick(&[SECOND, 3 * SECOND, 8 * SECOND]);
            let pause = self.up_to(most);
            let until = self.nodes[n].paused_until.max(self.now + pause);
            self.nodes[n].paused_until = until;
            if self.rng.one_in(2) {
                // It does not hear what happened meanwhile either.
                self.counts.partitions += 1;
                for other in (0..self.nodes.len()).filter(|other| *other != n) {
                    self.network.cut(n, other);
                    self.network.cut(other, n);
                }
            }
            self.note(n, 50, || format!("stands still for {} ms", pause / MILLI));
        }
        if partition {
            self.partition();
        }
        if weather {
            self.network.lost = self.rng.below(300);
            self.network.doubled = self.rng.below(100);
            self.network.delay = *self.rng.pick(&[MILLI, 20 * MILLI, 200 * MILLI]);
        } else if self.rng.one_in(30) {
            self.network.calm();
        }
        if slow {
            self.counts.slow_disks += 1;
            self.nodes[n].slow_until = self.now + self.rng.below(5 * SECOND);
        }
        if bad {
            self.break_disk(n);
        }
        if transfer {
            self.transfer()?;
        }
        if member {
            self.change_member()?;
        }
        if flush && let Some(running) = &self.nodes[n].running {
            self.counts.flushes += 1;
            // A failing disk fails here too.
            let _ = running.engines.kv.flush(&running.engines.local);
            self.wake(n)?;
        }
        self.after(self.plan.every, Event::Mischief);
        Ok(())
    }

    /// Power is cut; the store starts again with what is left.
    pub(crate) fn crash(&mut self, n: usize) {
        let how = self.survival();
        let left = self.nodes[n].fs.crash(how);
        self.crash_to(n, left);
    }

    /// What a crash leaves.
    fn survival(&mut self) -> Survival {
        match self.rng.below(4) {
            0 => Survival::LoseUnsynced,
            1 => Survival::ProcessDeath,
            _ => Survival::Random {
                seed: self.rng.next_u64(),
            },
        }
    }

    /// The store is gone, and starts again with what is left.
    pub(crate) fn crash_to(&mut self, n: usize, left: Arc<SimFs>) {
        let node = &mut self.nodes[n];
        if node.running.is_none() {
            return;
        }
        node.fs.set_observer(None);
        node.running = None;
        node.fs = left;
        node.trap = None;
        node.disk_fails = false;
        node.life += 1;
        node.paused_until = 0;
        let life = node.life;
        self.note(n, 51, || "crashes".to_owned());
        // Some come back within a lease that they gave.
        let away = *self.rng.pick(&[50 * MILLI, 300 * MILLI, 2 * SECOND]);
        let delay = self.up_to(away);
        self.after(delay, Event::Start(n, life));
        // Those who waited at it are told by nobody but its end.
        self.found = self.take_answers().err().or(self.found.take());
    }

    /// A store loses its disk. It must not take part again under its name: what it has promised is gone.
    fn wipe(&mut self, n: usize) {
        if self.nodes.iter().any(|node| node.wiped) || self.nodes[n].running.is_none() {
            return;
        }
        self.counts.wiped += 1;
        self.crash_to(n, SimFs::new());
        self.nodes[n].wiped = true;
    }

    fn partition(&mut self) {
        self.network.mend();
        if self.rng.one_in(3) {
            return;
        }
        self.counts.partitions += 1;
        let count = self.nodes.len();
        let kind = self.rng.below(3);
        let sides: Vec<u64> = (0..count).map(|_| self.rng.below(2)).collect();
        // A bridge is in both halves.
        let bridge = (kind == 1).then(|| self.rng.index(count));
        for from in 0..count {
            for to in 0..count {
                let apart = sides[from] != sides[to] && bridge != Some(from) && bridge != Some(to);
                let one_way = kind == 2 && sides[from] == 1;
                if from != to && apart && !one_way {
                    self.network.cut(from, to);
                }
            }
        }
        self.note(0, 52, || format!("a partition: {sides:?}, kind {kind}"));
    }

    /// The next operations of a kind fail on a store's disk.
    fn break_disk(&mut self, n: usize) {
        if self.nodes[n].running.is_none() {
            return;
        }
        self.counts.bad_disks += 1;
        self.nodes[n].disk_fails = true;
        let full = self.rng.one_in(2);
        self.note(n, 53, || format!("its disk fails, full: {full}"));
        let rule = move |op: &basalt_engine::fs::sim::Op| {
            let hit = match full {
                true => matches!(op.kind, OpKind::Write | OpKind::Create),
                false => matches!(op.kind, OpKind::Sync),
            };
            hit.then(|| match full {
                true => Failure::of(std::io::Error::from(std::io::ErrorKind::StorageFull)),
                false => Failure::device(),
            })
        };
        self.nodes[n].fs.set_fault_rule(Some(Arc::new(rule)));
        // It is noticed soon, or the store is replaced like one that crashed.
        let life = self.nodes[n].life;
        self.after(10 * SECOND, Event::Replace(n, life));
    }

    /// The store that leads in the highest term, as far as anybody knows.
    fn leader(&self) -> Option<(usize, basalt_raftstore::RegionStatus)> {
        let statuses = self.statuses();
        let regions = statuses
            .into_iter()
            .flat_map(|(n, status)| status.regions.into_iter().map(move |region| (n, region)));
        regions
            .filter(|(_, region)| region.role == "leader")
            .max_by_key(|(_, region)| region.term)
    }

    fn ask(
        &mut self,
        n: usize,
        admin: AdminRequest,
        region: &basalt_raftstore::RegionStatus,
    ) -> Check {
        let request = RaftCmdRequest {
            header: Some(RaftRequestHeader {
                region_id: region.region.id,
                peer: Some(region.peer),
                region_epoch: region.region.region_epoch,
                term: 0,
            }),
            admin_request: Some(admin),
            ..RaftCmdRequest::default()
        };
        if let Some(running) = &self.nodes[n].running {
            let patience = self.patience();
            running.handle.propose(request, patience, Callback::none());
        }
        self.wake(n)
    }

    fn transfer(&mut self) -> Check {
        let Some((n, region)) = self.leader() else {
            return Ok(());
        };
        let to = *self.rng.pick(&region.region.peers);
        self.counts.transfers += 1;
        let admin = AdminRequest {
            cmd_type: AdminCmdType::TransferLeader.into(),
            transfer_leader: Some(TransferLeaderRequest { peer: Some(to) }),
            ..AdminRequest::default()
        };
        self.ask(n, admin, &region)
    }

    /// One member more or less.
    fn change_member(&mut self) -> Check {
        let Some((n, region)) = self.leader() else {
            return Ok(());
        };
        let members = &region.region.peers;
        let store_id = self.rng.below(self.nodes.len() as u64) + 1;
        let present = members.iter().find(|member| member.store_id == store_id);
        let conf_ver = region.region.region_epoch.unwrap_or_default().conf_ver;
        let (kind, target) = match present {
            Some(member) if members.len() > 1 => (ConfChangeType::RemoveNode, *member),
            Some(_) => return Ok(()),
            None => {
                let kind = match self.rng.one_in(3) {
                    true => ConfChangeType::AddLearnerNode,
                    false => ConfChangeType::AddNode,
                };
                (kind, peer((conf_ver << 20) | store_id, store_id))
            }
        };
        self.counts.member_changes += 1;
        self.note(n, 54, || {
            format!("is to change a member: {kind:?} {target:?}")
        });
        let admin = AdminRequest {
            cmd_type: AdminCmdType::ChangePeer.into(),
            change_peer: Some(ChangePeerRequest {
                change_type: kind.into(),
                peer: Some(target),
            }),
            ..AdminRequest::default()
        };
        self.ask(n, admin, &region)
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn be_kind(&mut self) {
        self.kind = true;
        self.oracle.kind_since = self.now;
        self.network.mend();
        self.network.calm();
        self.note(0, 55, || "everything is kind".to_owned());
        for n in 0..self.nodes.len() {
            self.nodes[n].slow_until = 0;
            // A pause goes on to its end: what came meanwhile was put off until then.
            if self.nodes[n].disk_fails {
                self.crash(n);
            }
        }
    }
}
