//! Health in words: what would be lost now, were the process killed, the power cut, or a store gone.
//!
//! Promises: a sentence says what is true of the durability that the server gives (README, "What survives what") and of the
//! members that answer now; it never promises more than that.

use basalt_proto::basaltpb::{Mode, State, StatusResponse};
use serde::Serialize;

use super::cluster::{RegionView, Survey};

/// Entries behind its leader from which a store is worth a word.
const MUCH_LAG: u64 = 10_000;

/// How good or bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Grade {
    Good,
    Note,
    Warn,
    Bad,
}

/// What would happen, and how bad it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Word {
    pub(super) subject: &'static str,
    pub(super) grade: Grade,
    pub(super) text: String,
}

/// The sentences, from the smallest accident to the largest.
pub(super) fn health(status: &StatusResponse, survey: &Survey, in_flight: i64) -> Vec<Word> {
    let is_cluster = status.mode() == Mode::Replicated;
    let mut words = Vec::new();
    let mut say = |subject, grade, text: String| {
        words.push(Word {
            subject,
            grade,
            text,
        });
    };
    match status.state() {
        State::Serving => {}
        State::ReadOnly => say(
            "This server",
            Grade::Bad,
            format!(
                "It takes no writes, and goes on reading: {}.",
                status.reason
            ),
        ),
        State::Fenced => say(
            "This server",
            Grade::Bad,
            format!("It serves nothing: {}.", status.reason),
        ),
        State::Draining => say(
            "This server",
            Grade::Warn,
            "It was told to stop and is ending.".to_owned(),
        ),
        State::Starting | State::Unspecified => {
            say(
                "This server",
                Grade::Warn,
                format!("It does not serve yet: {}.", status.reason),
            );
        }
    }
    let on_disk = match is_cluster {
        true => "each write is on the disks of a majority of stores",
        false => "each write is on the disk",
    };
    say(
        "The process is killed",
        Grade::Good,
        format!("Nothing that was acknowledged is lost: {on_disk} before it is answered."),
    );
    let open = match in_flight {
        0 => "No request is on its way now.".to_owned(),
        1 => "One request is on its way; it has not been answered, and may come about or not."
            .to_owned(),
        many => format!(
            "{many} requests are on their way; they have not been answered, and may come about or not."
        ),
    };
    say(
        "The power fails",
        Grade::Good,
        format!("Nothing that was acknowledged is lost: it was synced, not only written. {open}"),
    );
    if is_cluster {
        let (grade, text) = one_store(&survey.regions);
        say("One store is lost", grade, text);
        say(
            "A majority of stores is lost",
            Grade::Note,
            "Service ends until a majority is back. If their disks are gone for good, the newest acknowledged writes may be \
             lost with them."
                .to_owned(),
        );
    } else {
        say(
            "This machine is lost",
            Grade::Warn,
            "Everything is lost: this is the only copy. Take backups, or run three stores."
                .to_owned(),
        );
    }
    words
}

/// What the loss of one more store means, by the region that fares worst.
fn one_store(regions: &[RegionView]) -> (Grade, String) {
    if regions.is_empty() {
        return (
            Grade::Warn,
            "No region is known here yet, so nothing can be said.".to_owned(),
        );
    }
    let worst = regions
        .iter()
        .map(one_store_of)
        .max_by_key(|(grade, _)| *grade);
    worst.expect("there is a region")
}

fn one_store_of(region: &RegionView) -> (Grade, String) {
    let id = region.id;
    let voters: Vec<_> = region.peers.iter().filter(|peer| !peer.learner).collect();
    let alive = voters.iter().filter(|peer| peer.alive).count();
    let all = voters.len();
    let enough = all / 2 + 1;
    if region.leader.is_none() {
        return (
            Grade::Bad,
            format!(
                "Region {id} has no leader now, so nothing of it is served: {alive} of its {all} stores answer, {enough} are needed."
            ),
        );
    }
    if all == 1 {
        return (
            Grade::Bad,
            format!(
                "Region {id} has one store only: with its disk everything would be lost. Add stores (basalt member add)."
            ),
        );
    }
    if alive <= enough {
        let out: Vec<String> = voters
            .iter()
            .filter(|peer| !peer.alive)
            .map(|peer| peer.store_id.to_string())
            .collect();
        let out = match out.is_empty() {
            true => String::new(),
            false => format!(" (store {} is out)", out.join(", ")),
        };
        return (
            Grade::Warn,
            format!(
                "Nothing that was acknowledged is lost, but region {id} would stop: {alive} of {all} stores are alive{out} and \
                 {enough} are needed."
            ),
        );
    }
    let behind = voters
        .iter()
        .filter(|peer| peer.lag.is_some_and(|lag| lag > MUCH_LAG));
    let behind: Vec<String> = behind
        .map(|peer| format!("store {}", peer.store_id))
        .collect();
    let text = format!(
        "Nothing is lost and service goes on: {alive} of {all} stores are alive and {enough} are enough. If the leader goes, \
         another takes over within about two seconds."
    );
    match behind.is_empty() {
        true => (Grade::Good, text),
        false => (
            Grade::Note,
            format!("{text} Far behind: {}.", behind.join(", ")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::PeerView;
    use super::*;

    fn region(alive: &[bool], leader: Option<u64>) -> RegionView {
        let peers = (1..).zip(alive).map(|(id, alive)| PeerView {
            id,
            store_id: id,
            role: None,
            learner: false,
            alive: *alive,
            applied: None,
            matched: None,
            lag: Some(0),
            progress: None,
        });
        RegionView {
            id: 1,
            start_key: String::new(),
            end_key: String::new(),
            leader,
            term: 1,
            committed: 1,
            last_index: 1,
            log_bytes: 0,
            peers: peers.collect(),
            reasons: Vec::new(),
        }
    }

    #[test]
    fn the_loss_of_one_store_is_as_bad_as_the_members_that_are_left() {
        let leader = Some(1);
        for (alive, leader, grade, words) in [
            (
                &[true, true, true][..],
                leader,
                Grade::Good,
                "service goes on",
            ),
            (&[true, true, false], leader, Grade::Warn, "store 3 is out"),
            (
                &[true, true],
                leader,
                Grade::Warn,
                "2 of 2 stores are alive and 2 are needed",
            ),
            (&[true], leader, Grade::Bad, "one store only"),
            (&[true, false, false], None, Grade::Bad, "no leader"),
            (
                &[true, true, true, true, false],
                leader,
                Grade::Good,
                "4 of 5",
            ),
        ] {
            let (is, text) = one_store(&[region(alive, leader)]);
            assert_eq!(is, grade, "{alive:?}: {text}");
            assert!(text.contains(words), "{text}");
        }
        let both = [
            region(&[true, true, true], leader),
            region(&[true, true, false], leader),
        ];
        assert_eq!(one_store(&both).0, Grade::Warn, "the worst counts");
        let mut behind = region(&[true, true, true], leader);
        behind.peers[2].lag = Some(MUCH_LAG + 1);
        assert_eq!(one_store(&[behind]).0, Grade::Note);
    }

    #[test]
    fn a_server_that_does_not_serve_says_so_first() {
        let mut status = StatusResponse {
            reason: "disk full".to_owned(),
            ..StatusResponse::default()
        };
        status.set_state(State::ReadOnly);
        status.set_mode(Mode::Standalone);
        let words = health(&status, &Survey::default(), 0);
        assert_eq!(
            (words[0].subject, words[0].grade),
            ("This server", Grade::Bad)
        );
        assert!(words[0].text.contains("disk full"));
        assert_eq!(words.last().unwrap().subject, "This machine is lost");
    }
}
