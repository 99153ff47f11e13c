//! The asynchronous way to persist: an append thread and an apply thread for each node, each doing
//! its messages in their order, and messages held back until their term is durable.

use basalt_raft::{
    LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, RawNode,
    eraftpb::{HardState, Message},
};

use super::{
    invariants::Check,
    node::{Appending, AsyncDriver, Driver, Point, step_of},
    world::{Event, World},
};

impl World {
    fn threads(&mut self, n: usize) -> &mut AsyncDriver {
        match &mut self.process(n).driver {
            Driver::Async(driver) => driver,
            Driver::Sync(_) => unreachable!("a step of the other driver"),
        }
    }

    pub(crate) fn poll_async(&mut self, n: usize) -> Check {
        let Some(ready) = self.call(n, RawNode::ready)? else {
            return Ok(());
        };
        self.note(n, 20, || {
            format!(
                "ready: {:?}, {} entries, snapshot {}, {} committed, {} messages",
                ready.hard_state,
                ready.entries.len(),
                ready.snapshot.is_some(),
                ready.committed_entries.len(),
                ready.messages.len()
            )
        });
        self.grant_reads(n, &ready.read_states)?;
        let (to_append, others): (Vec<_>, Vec<_>) = ready
            .messages
            .into_iter()
            .partition(|message| message.to == LOCAL_APPEND_THREAD);
        // First what makes the term durable, then what may have to wait for it.
        for append in to_append {
            self.hand_over(n, append);
        }
        for message in others {
            if message.to == LOCAL_APPLY_THREAD {
                self.threads(n).applies.push_back(message);
                continue;
            }
            let holds_for_vote = self.plan.holds_for_vote;
            let threads = self.threads(n);
            let with = match holds_for_vote {
                true => threads.term_with.max(threads.vote_with),
                false => threads.term_with,
            };
            if with > threads.durable {
                threads.held.push_back((with, message));
                self.counts.held_messages += 1;
                continue;
            }
            self.send(n, message)?;
            if self.springs(n, Point::Sent) {
                return Ok(());
            }
        }
        self.schedule_write(n);
        self.schedule_apply(n);
        Ok(())
    }

    fn hand_over(&mut self, n: usize, append: Message) {
        self.counts.async_appends += 1;
        let threads = self.threads(n);
        threads.handed += 1;
        if append.term > 0 {
            let before = threads.hard_state;
            let hard_state = HardState {
                term: append.term,
                vote: append.vote,
                commit: append.commit,
            };
            if hard_state.term != before.term {
                threads.term_with = threads.handed;
            }
            if hard_state.term != before.term || hard_state.vote != before.vote {
                threads.vote_with = threads.handed;
            }
            threads.hard_state = hard_state;
        }
        let in_flight = !threads.unsynced.is_empty() || !threads.appends.is_empty();
        threads.appends.push_back(append);
        self.counts.async_appends_in_flight += u64::from(in_flight);
    }

    fn schedule_write(&mut self, n: usize) {
        let depth = self.plan.depth;
        let threads = self.threads(n);
        if threads.writing || threads.appends.is_empty() || threads.unsynced.len() >= depth {
            return;
        }
        threads.writing = true;
        let delay = self.up_to(self.mood.pace.poll);
        self.after(delay, Event::AppendWrite(n, self.nodes[n].life));
    }

    pub(crate) fn append_write(&mut self, n: usize) -> Check {
        let threads = self.threads(n);
        threads.writing = false;
        let Some(message) = threads.appends.pop_front() else {
            return Ok(());
        };
        threads.written += 1;
        let number = threads.written;
        let hard_state = (message.term > 0).then_some(HardState {
            term: message.term,
            vote: message.vote,
            commit: message.commit,
        });
        let (step, restores) = step_of(hard_state, message.snapshot.as_deref(), &message.entries);
        let writes = !step.is_empty();
        let disk = self.process(n).raw.storage_mut();
        let step = writes.then(|| disk.write(step));
        self.threads(n).unsynced.push_back(Appending {
            number,
            step,
            restores,
            responses: message.responses,
        });
        self.note(n, 21, || format!("writes append {number}"));
        if self.springs(n, Point::Written) {
            return Ok(());
        }
        let delay = self.sync_time(n);
        self.after(delay, Event::AppendSync(n, self.nodes[n].life, number));
        self.schedule_write(n);
        Ok(())
    }

    pub(crate) fn append_sync(&mut self, n: usize, number: u64) -> Check {
        if self.threads(n).durable >= number {
            return Ok(()); // A later sync was faster.
        }
        let mut done = Vec::new();
        while let Some(appending) = self
            .threads(n)
            .unsynced
            .pop_front_if(|a| a.number <= number)
        {
            done.push(appending);
        }
        if let Some(step) = done.iter().rev().find_map(|appending| appending.step) {
            self.process(n).raw.storage_mut().sync(step);
            self.oracle.synced(&self.nodes, n)?;
        }
        self.threads(n).durable = number;
        self.note(n, 22, || format!("has synced append {number}"));
        if self.springs(n, Point::Synced) {
            return Ok(());
        }
        while let Some((_, message)) = self
            .threads(n)
            .held
            .pop_front_if(|(with, _)| *with <= number)
        {
            self.send(n, message)?;
            if self.springs(n, Point::Sent) {
                return Ok(());
            }
        }
        let id = self.nodes[n].id;
        for appending in done {
            if let Some(machine) = &appending.restores {
                self.restore(n, machine)?;
            }
            for response in appending.responses {
                if response.to == id {
                    self.threads(n).appended.push_back(response);
                    let delay = self.up_to(self.mood.pace.poll);
                    self.after(delay, Event::Appended(n, self.nodes[n].life));
                    continue;
                }
                self.send(n, response)?;
                if self.springs(n, Point::Sent) {
                    return Ok(());
                }
            }
        }
        self.schedule_write(n);
        Ok(())
    }

    fn schedule_apply(&mut self, n: usize) {
        let threads = self.threads(n);
        if threads.applying || threads.applies.is_empty() {
            return;
        }
        threads.applying = true;
        let delay = self.apply_time(n);
        self.after(delay, Event::Apply(n, self.nodes[n].life));
    }

    pub(crate) fn apply_next(&mut self, n: usize) -> Check {
        let threads = self.threads(n);
        threads.applying = false;
        let Some(message) = threads.applies.pop_front() else {
            return Ok(());
        };
        self.apply(n, &message.entries)?;
        if self.springs(n, Point::Applied) {
            return Ok(());
        }
        for response in message.responses {
            self.threads(n).applied.push_back(response);
            let delay = self.up_to(self.mood.pace.poll);
            self.after(delay, Event::Applied(n, self.nodes[n].life));
        }
        self.schedule_apply(n);
        Ok(())
    }

    pub(crate) fn answer_appended(&mut self, n: usize) -> Check {
        let Some(response) = self.threads(n).appended.pop_front() else {
            return Ok(());
        };
        self.note(n, 23, || {
            format!(
                "hears of its append: {}",
                super::trace::message_text(&response)
            )
        });
        self.call(n, |raw| raw.step(response))?;
        Ok(())
    }

    pub(crate) fn answer_applied(&mut self, n: usize) -> Check {
        let Some(response) = self.threads(n).applied.pop_front() else {
            return Ok(());
        };
        let last = response.entries.last().map_or(0, |entry| entry.index);
        self.note(n, 24, || format!("hears that {last} is applied"));
        self.call(n, |raw| raw.step(response))?;
        Ok(())
    }
}
