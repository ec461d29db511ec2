//! What the ranks should have at the end of a replay, and whether they have it.

use super::fault::{Element, Fault, PlanError};
use super::forms::Value;
use super::replay::{NEVER, Replay};
use crate::plan::{Buffer, Collective};

impl Replay<'_> {
    /// Compares what the ranks have with what they should have. Returns the first element that is
    /// not one fold of all contributions in rank order, and the first that is not the canonical
    /// tree over them.
    pub(super) fn results(&mut self) -> Result<[Option<(usize, Element)>; 2], PlanError> {
        let (mut again, mut other_tree) = (None, None);
        for rank in 0..self.plans.len() {
            let early = self.heard.get(rank).and_then(|heard| heard.iter().position(|h| !h));
            if let Some(other) = early {
                return Err(PlanError { rank, place: None, fault: Fault::LeavesEarly(other) });
            }
            for (i, (index, owner)) in self.expected(rank).into_iter().enumerate() {
                let element = Element { buffer: Buffer::Output, index: i };
                let cell = *self.cell(rank, element);
                let (round, step) = cell.writer;
                let place = (round != NEVER).then_some((round as usize, step as usize));
                let wrong = |fault| PlanError { rank, place, fault };
                let value = cell.value.ok_or_else(|| wrong(Fault::Unwritten(element)))?;
                self.compare(rank, element, value, (index, owner)).map_err(wrong)?;
                if again.is_none() && !self.forms.is_once_in_order(value.form) {
                    again = Some((rank, element));
                }
                if other_tree.is_none() && !self.forms.is_canonical(value.form) {
                    other_tree = Some((rank, element));
                }
            }
        }
        Ok([again, other_tree].map(|first| first.filter(|_| self.problem.collective.reduces())))
    }

    fn compare(
        &mut self,
        rank: usize,
        element: Element,
        value: Value,
        (index, owner): (usize, usize),
    ) -> Result<(), Fault> {
        let reduces = self.problem.collective.reduces();
        let right = value.index as usize == index;
        if !right || !(reduces || value.form as usize == owner) {
            let found = (value.index as usize, self.forms.leaf(value.form));
            return Err(Fault::Wrong { element, expected: (index, owner), found });
        }
        if let Some(other) = self.forms.missing(value.form).filter(|_| reduces) {
            return Err(Fault::Missing { element, rank: other });
        }
        if self.problem.collective == Collective::AllReduce && rank > 0 {
            let first = self.cell(0, element).value;
            if first.is_some_and(|first| first.form != value.form) {
                return Err(Fault::OtherOrder(element));
            }
        }
        Ok(())
    }

    /// What each element of the output of `rank` should hold: the index in the vector (all_to_all:
    /// in the input of the sender), and the rank that it comes from (reductions: any).
    fn expected(&self, rank: usize) -> Vec<(usize, usize)> {
        let (problem, shards) = (self.problem, &self.problem.sharding);
        let n = 0..problem.output_len(rank);
        match problem.collective {
            Collective::ReduceScatter => shards.range(rank).map(|i| (i, rank)).collect(),
            Collective::AllReduce => n.map(|i| (i, rank)).collect(),
            Collective::AllGather | Collective::Gather { .. } => {
                n.map(|i| (i, shards.owner(i).unwrap_or(rank))).collect()
            }
            Collective::Broadcast { root } => n.map(|i| (i, root)).collect(),
            Collective::Scatter { root } => shards.range(rank).map(|i| (i, root)).collect(),
            Collective::AllToAll => (0..problem.ranks())
                .flat_map(|from| problem.sent(from, rank).map(move |i| (i, from)))
                .collect(),
            Collective::Barrier => Vec::new(),
        }
    }
}
