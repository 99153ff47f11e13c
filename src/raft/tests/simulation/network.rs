//! The network: which links are cut, and what becomes of a message on the others: lost, late, twice,
//! out of order.

use basalt_raft::eraftpb::Message;
use basalt_testkit::Rng;

use super::plan::TICK;

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Envelope {
    /// Who sent it, as a place among the nodes; `Message::from` may name somebody else.
    pub(crate) from: usize,
    /// To whom.
    pub(crate) to: usize,
    /// Which disk of the receiver it was meant for.
    pub(crate) incarnation: u32,
    /// Which life of the sender wants to know what became of it.
    pub(crate) life: u32,
    /// What it says.
    pub(crate) message: Message,
}

/// How well messages travel at present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Lost, of 1,000.
    pub(crate) lost: u64,
    /// Delivered twice, of 1,000.
    pub(crate) twice: u64,
    /// Held back for several ticks, of 1,000.
    pub(crate) late: u64,
    /// Longest time that a message usually takes.
    pub(crate) delay: u64,
    /// Longest time that one takes that is held back.
    pub(crate) lateness: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) const FINE: Self = Self {
        lost: 0,
        twice: 0,
        late: 0,
        delay: TICK / 20,
        lateness: TICK,
    };
}

/// The links between all nodes.
pub(crate) struct Network {
    nodes: usize,
    cut: Vec<bool>,
    /// What each link takes longer than others.
    slower: Vec<u64>,
    /// How well messages travel.
    pub(crate) weather: Weather,
    /// A cut link also loses what is on its way, not only what is sent from now on.
    pub(crate) cuts_lose_all: bool,
}

impl Network {
    /// Links between `nodes` nodes, none of them cut.
    pub(crate) fn new(nodes: usize, weather: Weather, cuts_lose_all: bool) -> Self {
        Self {
            nodes,
            cut: vec![false; nodes * nodes],
            slower: vec![0; nodes * nodes],
            weather,
            cuts_lose_all,
        }
    }

    /// Whether nothing gets from one node to the other.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.nodes + to]
    }

    /// Cuts the way from one node to the other.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        if from != to {
            self.cut[from * self.nodes + to] = true;
        }
    }

    /// Cuts both ways.
    pub(crate) fn cut_both(&mut self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Everything from one node to the other takes longer.
    pub(crate) fn slow_down(&mut self, from: usize, to: usize, by: u64) {
        self.slower[from * self.nodes + to] = by;
    }

    /// Mends all links.
    pub(crate) fn mend(&mut self) {
        self.cut.fill(false);
        self.slower.fill(0);
    }

    /// After how long each copy of a message arrives; none where it is lost.
    pub(crate) fn fate(&self, rng: &mut Rng, from: usize, to: usize, large: bool) -> Vec<u64> {
        let weather = self.weather;
        if self.is_cut(from, to) || rng.below(1000) < weather.lost {
            return Vec::new();
        }
        let delay = |rng: &mut Rng, late: u64| {
            let late = rng.below(1000) < late;
            let most = if late {
                weather.lateness
            } else {
                weather.delay
            };
            let slower = if large { 3 } else { 1 };
            rng.range(most / 20..most + 1) * slower + self.slower[from * self.nodes + to]
        };
        let mut delays = vec![delay(rng, weather.late)];
        if rng.below(1000) < weather.twice {
            delays.push(delay(rng, 500));
        }
        delays
    }
}
