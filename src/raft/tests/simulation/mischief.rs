//! What goes wrong: deaths, partitions, pauses, weather, slow disks.

use std::rc::Rc;

use basalt_raft::eraftpb::ConfState;

use super::{
    disk::Survival,
    invariants::Check,
    machine::Machine,
    node::{Node, POINTS, Point},
    plan::{MISCHIEF, Mischief, Mood, TICK, some_weather, weighted},
    world::{Event, World},
};

/// All members, whatever their role.
pub(crate) fn members(conf: &ConfState) -> impl Iterator<Item = u64> {
    let all = [
        &conf.nodes,
        &conf.learners,
        &conf.voters_outgoing,
        &conf.learners_next,
    ];
    let mut ids: Vec<u64> = all.into_iter().flatten().copied().collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
}

impl World {
    /// Something goes wrong, unless the world is kind.
    pub(crate) fn mischief(&mut self) -> Check {
        if self.kind {
            return Ok(());
        }
        let next = self.up_to(self.mood.pace.mischief);
        self.after(next, Event::Mischief);
        let Some(which) = weighted(&mut self.rng, &self.mood.mischief) else {
            return Ok(());
        };
        let which = MISCHIEF[which];
        let now = self.now;
        self.trace.event(&[now, which as u64, 30], || {
            format!("t={now} mischief: {which:?}")
        });
        self.do_mischief(which);
        Ok(())
    }

    /// The world gets into another mood, unless it is kind.
    pub(crate) fn change_mood(&mut self) {
        if self.kind {
            return;
        }
        self.mood = Mood::some(&mut self.rng, self.plan.election_tick);
        self.network.weather = self.mood.weather;
        let later = self.rng.range(50..250) * TICK;
        self.after(later, Event::Mood);
        let (now, mood) = (self.now, &self.mood);
        self.trace
            .event(&[now, 35], || format!("t={now} another mood: {mood:?}"));
    }

    fn do_mischief(&mut self, which: Mischief) {
        let victim = self.some_running();
        let leader = self.some_leader();
        match which {
            Mischief::Split | Mischief::Bridge => self.split(which == Mischief::Bridge),
            Mischief::IsolateLeader if self.rng.one_in(3) => self.with(leader, Self::wither),
            Mischief::IsolateLeader => self.with(leader, Self::isolate),
            Mischief::OneWay => self.with(victim, Self::make_one_way),
            Mischief::CutLink => self.cut_link(leader),
            Mischief::SlowWay => self.with(leader.or(victim), Self::slow_way),
            Mischief::Mend => self.network.mend(),
            Mischief::Crash => self.with(victim, Self::crash),
            Mischief::CrashLeader => self.with(leader, Self::crash),
            Mischief::PowerCut => {
                for n in 0..self.nodes.len() {
                    self.crash(n);
                }
            }
            Mischief::Upgrade => {
                for n in (0..self.nodes.len()).filter(|n| Some(*n) != leader) {
                    self.crash(n);
                    let delay = self.up_to(TICK);
                    self.after(delay, Event::Start(n, self.nodes[n].life));
                }
                if self.rng.one_in(2) {
                    self.with(leader, Self::isolate);
                }
            }
            Mischief::Trap => {
                let point = *self.rng.pick(&POINTS);
                self.with(victim, |world, n| world.nodes[n].trap = Some(point));
            }
            Mischief::Pause => self.with(victim, Self::pause),
            Mischief::PauseLeader => self.with(leader, Self::pause),
            Mischief::Weather => {
                self.network.weather = some_weather(&mut self.rng, self.plan.election_tick);
            }
            Mischief::SlowDisk => {
                let until = self.now + 2 * self.a_while();
                self.with(victim, |world, n| world.nodes[n].slow_disk_until = until);
            }
            Mischief::SlowApply => {
                for n in (0..self.nodes.len()).filter(|n| Some(*n) != leader) {
                    if self.rng.one_in(2) {
                        self.nodes[n].slow_apply_until = self.now + 4 * self.a_while();
                    }
                }
            }
            Mischief::SnapshotBusy => self.with(victim, |world, n| {
                let busy = &world.nodes[n].disk().snapshot_busy;
                busy.set(!busy.get());
            }),
            Mischief::GiveBack => self.give_back(),
        }
    }

    fn with(&mut self, n: Option<usize>, what: impl FnOnce(&mut Self, usize)) {
        if let Some(n) = n {
            what(self, n);
        }
    }

    /// Something between a moment and several election timeouts.
    fn a_while(&mut self) -> u64 {
        let timeout = self.plan.election_tick * TICK;
        let most = *self
            .rng
            .pick(&[TICK, timeout / 2, 2 * timeout, 5 * timeout]);
        self.up_to(most)
    }

    /// Some node that runs.
    pub(crate) fn some_running(&mut self) -> Option<usize> {
        let running = |n: &usize| self.nodes[*n].process.is_some();
        let running: Vec<usize> = (0..self.nodes.len()).filter(running).collect();
        if running.is_empty() {
            return None;
        }
        Some(*self.rng.pick(&running))
    }

    /// A node that thinks that it leads, mostly the one of the highest term.
    pub(crate) fn some_leader(&mut self) -> Option<usize> {
        let mut leaders: Vec<(u64, usize)> = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            if let Some(process) = node.process.as_ref().filter(|process| process.seen.led) {
                leaders.push((process.seen.term, n));
            }
        }
        if leaders.is_empty() {
            return None;
        }
        let latest = leaders.iter().max().copied();
        let some = *self.rng.pick(&leaders);
        let chosen = if self.rng.one_in(4) {
            Some(some)
        } else {
            latest
        };
        chosen.map(|(_, n)| n)
    }

    // Deaths.

    /// A node dies, and starts again after a while.
    pub(crate) fn crash(&mut self, n: usize) {
        if self.nodes[n].process.is_none() {
            return;
        }
        self.nodes[n].stop();
        let unsynced = self.nodes[n].disk().unsynced();
        let survival = match self.rng.below(4) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            _ => Survival::Steps(self.rng.below(unsynced + 1)),
        };
        let lost = self.nodes[n].resting().crash(survival);
        self.counts.crashes += 1;
        self.counts.restarts_with_loss += u64::from(lost > 0);
        self.note(n, 31, || {
            format!("dies, and loses {lost} of {unsynced} unsynced steps")
        });
        let mut delay = self.a_while();
        if self.rng.one_in(2) {
            delay = delay.min(TICK);
        }
        self.after(delay, Event::Start(n, self.nodes[n].life));
    }

    /// A node stands still for a while.
    fn pause(&mut self, n: usize) {
        let until = self.now + self.a_while();
        let node = &mut self.nodes[n];
        node.paused = true;
        node.paused_until = node.paused_until.max(until);
        let (until, life) = (node.paused_until, node.life);
        self.counts.pauses += 1;
        self.note(n, 32, || format!("stands still until {until}"));
        self.at(until, Event::Resume(n, life));
    }

    /// Members that were removed give their data back, and wait to be made members again. Only once
    /// all members have saved a state that knows of the removal, and then all who were removed at
    /// once: so nobody is left who may count on what they had, and no snapshot that would make
    /// voters of them again. They keep term and vote, and say nothing before they are members.
    pub(crate) fn give_back(&mut self) {
        let (since, conf) = self.oracle.membership_now();
        let members: Vec<u64> = members(conf).collect();
        let saves = |node: &mut Node| {
            let Some(process) = node.process.as_deref_mut() else {
                return false;
            };
            let machine = Rc::new(process.machine.clone());
            let disk = process.raw.storage_mut();
            let knows = |saved: &Machine| saved.applied.index >= since;
            knows(&disk.durable().machine) || (knows(&machine) && disk.save_durably(&machine))
        };
        let is_member = |node: &&mut Node| members.contains(&node.id);
        if self.kind || !self.nodes.iter_mut().filter(is_member).all(saves) {
            return;
        }
        let term = self.oracle.last_term();
        for n in 0..self.nodes.len() {
            let node = &mut self.nodes[n];
            if node.blank || members.contains(&node.id) {
                continue;
            }
            node.stop();
            node.resting().crash(Survival::Everything);
            let emptied = node.disk().emptied(term);
            *node.resting() = emptied;
            node.life += 1;
            node.incarnation += 1;
            node.blank = true;
            node.reborn = true;
            self.oracle.given_back(n);
            self.note(n, 33, || "gives its data back".to_owned());
        }
    }

    /// A membership is in force somewhere: its new members start.
    pub(crate) fn on_membership(&mut self, conf: &ConfState) {
        for id in members(conf) {
            let n = usize::try_from(id - 1).expect("a place");
            if self.nodes[n].blank {
                let delay = self.up_to(2 * TICK);
                self.after(delay, Event::Start(n, self.nodes[n].life));
            }
        }
        if !self.kind && self.rng.below(100) < self.mood.giving_back {
            // As soon as all know, or not at all.
            for _ in 0..3 {
                let delay = self.up_to(5 * TICK);
                self.after(delay, Event::GiveBack);
            }
        }
    }

    // Partitions.

    /// Something is cut, for a while.
    fn cut(&mut self, cut: impl FnOnce(&mut Self)) {
        if self.rng.one_in(2) {
            self.network.mend();
        }
        cut(self);
        self.cuts += 1;
        self.counts.partitions += 1;
        let delay = self.a_while();
        self.after(delay, Event::Mend(self.cuts));
    }

    /// The links are mended, if nothing was cut since.
    pub(crate) fn mend(&mut self, cut: u64) {
        if cut == self.cuts {
            let now = self.now;
            self.trace
                .event(&[now, 34], || format!("t={now} all links are mended"));
            self.network.mend();
        }
    }

    fn split(&mut self, bridge: bool) {
        let sides = self.rng.next_u64();
        let count = self.nodes.len();
        let bridge = bridge.then(|| self.rng.index(count));
        self.cut(|world| {
            for one in 0..count {
                for other in 0..one {
                    let apart = (sides >> one ^ sides >> other) & 1 == 1;
                    if apart && Some(one) != bridge && Some(other) != bridge {
                        world.network.cut_both(one, other);
                    }
                }
            }
        });
    }

    /// A node's links break, unless the world has become kind.
    pub(crate) fn isolate_unless_kind(&mut self, n: usize) {
        if !self.kind {
            self.isolate(n);
        }
    }

    /// A node is alone, or with one other node.
    pub(crate) fn isolate(&mut self, n: usize) {
        let count = self.nodes.len();
        let friend = self.rng.index(2 * count);
        self.cut(|world| {
            for other in (0..count).filter(|other| *other != friend) {
                world.network.cut_both(n, other);
            }
        });
    }

    /// A node's links are slow before they break.
    fn wither(&mut self, n: usize) {
        self.slow_way(n);
        let delay = self.up_to(self.plan.election_tick * TICK);
        self.after(delay, Event::Isolate(n));
    }

    fn make_one_way(&mut self, n: usize) {
        let deaf = self.rng.one_in(2);
        let count = self.nodes.len();
        let spared = self.rng.index(2 * count);
        self.cut(|world| {
            for other in (0..count).filter(|other| *other != spared) {
                let (from, to) = if deaf { (other, n) } else { (n, other) };
                world.network.cut(from, to);
            }
        });
    }

    fn cut_link(&mut self, leader: Option<usize>) {
        let (any, other) = (
            self.rng.index(self.nodes.len()),
            self.rng.index(self.nodes.len()),
        );
        let one = leader.filter(|_| self.rng.one_in(2)).unwrap_or(any);
        let both = self.rng.one_in(2);
        self.cut(|world| {
            world.network.cut(one, other);
            if both {
                world.network.cut(other, one);
            }
        });
    }

    /// What a node hears is old, or what is heard from it.
    fn slow_way(&mut self, n: usize) {
        let inwards = self.rng.one_in(2);
        let by = self.up_to(self.plan.election_tick * TICK);
        for other in 0..self.nodes.len() {
            let (from, to) = if inwards { (other, n) } else { (n, other) };
            self.network.slow_down(from, to, by);
        }
    }

    // Elections.

    /// A new leader gets into trouble, in some runs more than in others.
    pub(crate) fn harass(&mut self, n: usize) -> Check {
        if self.kind || self.rng.below(100) >= self.mood.harassment {
            return Ok(());
        }
        match self.rng.below(6) {
            0 | 1 => self.isolate(n),
            2 => self.pause(n),
            3 => {
                let points = [Point::Written, Point::Synced, Point::Sent, Point::Applied];
                self.nodes[n].trap = Some(*self.rng.pick(&points));
            }
            _ => {}
        }
        for _ in 0..self.rng.below(4) {
            match self.rng.below(4) {
                0 => self.propose(n)?,
                1 => self.change_membership(n)?,
                2 => self.transfer(n)?,
                _ => self.read(n)?,
            }
        }
        Ok(())
    }
}
