//! Parts of a communicator, and agreement on errors.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::Location;
use std::rc::Rc;

use super::Communicator;
use super::call::Call;
use crate::control;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::executor::Prepared;
use crate::plan::{Collective, Problem};
use crate::sharding::Sharding;
use crate::signature::{Occasion, Signature};
use crate::transport::frame::Buffers;
use crate::transport::memory::Located;

/// A rank's place in a grid of ranks, with its row and its column.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The ranks of this rank's row, by column.
    pub row: Communicator,
    /// The ranks of this rank's column, by row.
    pub column: Communicator,
}

impl Communicator {
    /// The ranks that give the same `color`, ordered by `key` and then by rank. Collective.
    #[track_caller]
    pub fn split(&self, color: usize, key: usize) -> Result<Communicator> {
        self.come_together(Occasion::Split, Location::caller())?;
        let transport = self.context().transport.split(color, key)?;
        self.part(transport)
    }

    /// The ranks of this node. Collective.
    #[track_caller]
    pub fn split_by_node(&self) -> Result<Communicator> {
        self.split(self.topology().node(self.rank()), self.rank())
    }

    /// Arranges the ranks in `rows` × `columns`, row by row. Collective.
    #[track_caller]
    pub fn grid(&self, rows: usize, columns: usize) -> Result<Grid> {
        if rows.checked_mul(columns) != Some(self.ranks()) {
            return Err(Error::input(format!(
                "a grid of {rows} × {columns} needs {} ranks; there are {}",
                rows.saturating_mul(columns),
                self.ranks()
            )));
        }
        let (row, column) = (self.rank() / columns, self.rank() % columns);
        Ok(Grid { row: self.split(row, column)?, column: self.split(column, row)? })
    }

    /// The end of the job as a collective: a rank that has come to its end while others still call
    /// something is named, instead of being waited for. Collective.
    #[track_caller]
    pub(crate) fn end(&self) -> Result<()> {
        self.come_together(Occasion::End, Location::caller())
    }

    /// A barrier with a signature of its own, before what cannot be compared or given up: calls of
    /// the transport wait for all ranks without a limit.
    pub(super) fn come_together(
        &self,
        occasion: Occasion,
        site: &'static Location<'static>,
    ) -> Result<()> {
        let problem = Problem::new(Collective::Barrier, Sharding::even(0, self.ranks()));
        let call = Call { may_block: false, ..Call::new::<u64>(problem, None) };
        let ready = self.prepare(&call, [false; 2])?;
        let prepared = Rc::into_inner(ready.prepared)
            .ok_or_else(|| Error::internal("a call that was just made is in use"))?;
        let (signature, name) = (Signature::occasion(occasion), occasion.name().to_string());
        let prepared = Rc::new(Prepared { signature, name, ..prepared });
        prepared.reserve(self.context(), 0, site)?;
        let nothing = Buffers::separate(&[], &mut []);
        self.context().run(&prepared, nothing, [Located::default(); 2], site)
    }

    fn part(&self, transport: Box<dyn crate::transport::Transport>) -> Result<Communicator> {
        let context = self.context();
        let world_rank = context.world[self.rank()];
        Communicator::build(transport, *self.settings(), context.registry.clone(), world_rank)
    }

    /// Turns a result of each rank into one that all agree on: where any rank failed, all return
    /// the error of the lowest such rank. Use it after local work that may fail, such as reading
    /// a file, so that no rank is left waiting in the next collective. Collective.
    #[track_caller]
    pub fn agree<T>(&self, result: Result<T>) -> Result<T> {
        const FINE: u64 = u64::MAX;
        // The lowest failing rank, and whether all ranks fail with the same words: three minima.
        let mine = match &result {
            Ok(_) => [FINE, 0, 0],
            Err(error) => {
                let mut hasher = DefaultHasher::new();
                (error.kind, &error.message).hash(&mut hasher);
                let hash = hasher.finish() | 1; // never the 0 of a rank that is fine
                [self.rank() as u64, hash, !hash]
            }
        };
        let lowest = self.all_reduce_vec(&mine, Op::Min)?;
        if lowest[0] == FINE {
            return result;
        }
        let root = lowest[0] as usize;
        let mut words = match &result {
            Err(error) if root == self.rank() => control::encode_error(error)?,
            _ => Vec::new(),
        };
        let mut len = [words.len() as u64];
        self.broadcast(&mut len, root)?;
        words.resize(len[0] as usize, 0);
        self.broadcast(&mut words, root)?;
        let mut error = control::decode_error(&words)?;
        // Minimum of the hashes = maximum of them: the same error everywhere.
        if lowest[1] != !lowest[2] && self.ranks() > 1 || lowest[1] == 0 {
            error = error.on_rank(root);
        }
        error.agreed = true;
        Err(error)
    }
}
