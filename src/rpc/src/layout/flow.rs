//! Maximum flow of minimum cost, in phases of rising path cost.
//!
//! A phase sends all the flow it can along paths of one cost; the next phase's paths cost more. Flow built from cheapest paths only
//! is of minimum cost for its amount, at every moment. Within a phase the caller may choose paths itself, as long as they are
//! tight: that leaves the optimum untouched and lets it prefer, say, the emptiest node among equals.
//!
//! Costs are never negative. Deterministic: edges are tried in the order they were added.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A vertex: an index below the count that the network was made with.
pub(super) type Vertex = usize;
/// An edge, as returned by `add_edge`.
pub(super) type EdgeId = usize;

const UNREACHED: u32 = u32::MAX;

struct Edge {
    to: u32,
    spare: u32,
    cost: i32,
}

/// A flow network with a source and a sink.
pub(super) struct FlowNetwork {
    /// Edge `i` and its reverse `i ^ 1` are neighbours.
    edges: Vec<Edge>,
    out: Vec<Vec<u32>>,
    source: Vertex,
    sink: Vertex,
    /// Every edge with spare capacity has `cost + potential[from] - potential[to] >= 0`; it is tight when that is 0.
    potential: Vec<i32>,
    flow: u64,
}

impl FlowNetwork {
    pub(super) fn new(vertex_count: usize, source: Vertex, sink: Vertex) -> FlowNetwork {
        FlowNetwork { edges: Vec::new(), out: vec![Vec::new(); vertex_count], source, sink, potential: vec![0; vertex_count], flow: 0 }
    }

    pub(super) fn add_edge(&mut self, from: Vertex, to: Vertex, capacity: u32, cost: u8) -> EdgeId {
        let id = self.edges.len();
        self.edges.push(Edge { to: to as u32, spare: capacity, cost: i32::from(cost) });
        self.edges.push(Edge { to: from as u32, spare: 0, cost: -i32::from(cost) });
        self.out[from].push(id as u32);
        self.out[to].push(id as u32 + 1);
        id
    }

    /// What more an edge can carry.
    pub(super) fn spare(&self, edge: EdgeId) -> u32 {
        self.edges[edge].spare
    }

    /// What an edge carries.
    pub(super) fn carried(&self, edge: EdgeId) -> u32 {
        self.edges[edge ^ 1].spare
    }

    /// What reaches the sink.
    pub(super) fn flow(&self) -> u64 {
        self.flow
    }

    /// Prepares the next phase; the cost of its paths, or `None` when the flow is the greatest possible.
    pub(super) fn next_phase(&mut self) -> Option<i32> {
        let distances = self.distances();
        let reached = distances[self.sink];
        if reached == UNREACHED {
            return None;
        }
        for (potential, distance) in self.potential.iter_mut().zip(distances) {
            // What is further than the sink moves as far as the sink: that keeps its edges from becoming negative.
            *potential += distance.min(reached) as i32;
        }
        Some(self.potential[self.sink] - self.potential[self.source])
    }

    /// Sends one unit along `path`, tight edges from source to sink, each with spare capacity.
    pub(super) fn push_path(&mut self, path: &[EdgeId]) {
        debug_assert_eq!(
            path.iter().map(|&edge| self.edges[edge].cost).sum::<i32>(),
            self.potential[self.sink] - self.potential[self.source]
        );
        self.push(path, 1);
    }

    /// Sends all the flow that this phase's cost allows.
    pub(super) fn fill_phase(&mut self) {
        while let Some(levels) = self.levels() {
            self.block(&levels);
        }
    }

    fn push(&mut self, path: &[EdgeId], amount: u32) {
        for &edge in path {
            self.edges[edge].spare -= amount;
            self.edges[edge ^ 1].spare += amount;
        }
        self.flow += u64::from(amount);
    }

    fn reduced_cost(&self, from: Vertex, edge: &Edge) -> i32 {
        edge.cost + self.potential[from] - self.potential[edge.to as usize]
    }

    /// Shortest distances from the source by reduced costs (Dijkstra).
    fn distances(&self) -> Vec<u32> {
        let mut distances = vec![UNREACHED; self.out.len()];
        let mut queue = BinaryHeap::from([Reverse((0, self.source))]);
        distances[self.source] = 0;
        while let Some(Reverse((distance, vertex))) = queue.pop() {
            if distances[vertex] < distance {
                continue;
            }
            for &id in &self.out[vertex] {
                let edge = &self.edges[id as usize];
                if edge.spare == 0 {
                    continue;
                }
                let reduced = self.reduced_cost(vertex, edge);
                debug_assert!(0 <= reduced, "an edge with spare capacity has a negative reduced cost");
                let next = distance + reduced as u32;
                if next < distances[edge.to as usize] {
                    distances[edge.to as usize] = next;
                    queue.push(Reverse((next, edge.to as usize)));
                }
            }
        }
        distances
    }

    /// The number of tight edges from the source to each vertex; `None` when the sink can't be reached over tight edges.
    fn levels(&self) -> Option<Vec<u32>> {
        let mut levels = vec![UNREACHED; self.out.len()];
        let mut queue = VecDeque::from([self.source]);
        levels[self.source] = 0;
        while let Some(vertex) = queue.pop_front() {
            for &id in &self.out[vertex] {
                let edge = &self.edges[id as usize];
                let to = edge.to as usize;
                if 0 < edge.spare && levels[to] == UNREACHED && self.reduced_cost(vertex, edge) == 0 {
                    levels[to] = levels[vertex] + 1;
                    queue.push_back(to);
                }
            }
        }
        (levels[self.sink] != UNREACHED).then_some(levels)
    }

    /// Sends a blocking flow along shortest tight paths (Dinic), without recursion: paths can be long.
    fn block(&mut self, levels: &[u32]) {
        let mut next_out = vec![0; self.out.len()];
        let mut path: Vec<EdgeId> = Vec::new();
        let mut vertex = self.source;
        loop {
            if vertex == self.sink {
                let amount = path.iter().map(|&edge| self.edges[edge].spare).min().unwrap_or(0);
                self.push(&path, amount);
                path.clear();
                vertex = self.source;
            } else if let Some(edge) = self.usable_edge(vertex, &mut next_out[vertex], levels) {
                path.push(edge);
                vertex = self.edges[edge].to as usize;
            } else if let Some(edge) = path.pop() {
                // A dead end: the edge into it is passed over from now on.
                vertex = self.edges[edge ^ 1].to as usize;
                next_out[vertex] += 1;
            } else {
                return;
            }
        }
    }

    /// The first edge out of `vertex`, from `next_out` on, that leads a level on; `next_out` is moved to it.
    fn usable_edge(&self, vertex: Vertex, next_out: &mut usize, levels: &[u32]) -> Option<EdgeId> {
        while let Some(&id) = self.out[vertex].get(*next_out) {
            let edge = &self.edges[id as usize];
            if 0 < edge.spare && levels[edge.to as usize] == levels[vertex] + 1 && self.reduced_cost(vertex, edge) == 0 {
                return Some(id as usize);
            }
            *next_out += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::FlowNetwork;

    fn solve(network: &mut FlowNetwork) -> (u64, Vec<i32>) {
        let mut phases = Vec::new();
        while let Some(cost) = network.next_phase() {
            phases.push(cost);
            network.fill_phase();
        }
        (network.flow(), phases)
    }

    #[test]
    fn a_later_unit_reroutes_an_earlier_one_when_that_is_needed() {
        // The cheap path 0-1-2-3 blocks both others; the greatest flow must take it back.
        let mut network = FlowNetwork::new(4, 0, 3);
        for (from, to, cost) in [(0, 1, 0), (1, 2, 0), (2, 3, 0), (0, 2, 2), (1, 3, 3)] {
            network.add_edge(from, to, 1, cost);
        }
        assert_eq!(solve(&mut network), (2, vec![0, 5]));
        assert_eq!(network.carried(2), 0, "edge 1-2 is no longer used");
    }

    #[test]
    fn a_sink_out_of_reach_gets_nothing() {
        let mut network = FlowNetwork::new(3, 0, 2);
        network.add_edge(0, 1, 5, 0);
        assert_eq!(solve(&mut network), (0, vec![]));
    }

    #[test]
    fn cheaper_parallel_paths_fill_first() {
        let mut network = FlowNetwork::new(2, 0, 1);
        let dear = network.add_edge(0, 1, 4, 7);
        let cheap = network.add_edge(0, 1, 3, 1);
        assert_eq!(network.next_phase(), Some(1));
        network.push_path(&[cheap]);
        network.fill_phase();
        assert_eq!((network.carried(cheap), network.carried(dear)), (3, 0));
        assert_eq!(solve(&mut network), (7, vec![7]));
        assert_eq!(network.spare(dear), 0);
    }
}
