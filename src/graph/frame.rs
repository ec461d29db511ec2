//! What every job on a graph does around its own work: checks before anything is read, the phases
//! with their times, and the manifest at the end.
//!
//! Local trouble (a malformed line, a full disk) becomes the same error on every rank before the
//! next collective, so no rank waits for one that has given up. What can be checked without the
//! graph, such as the options and the name of the output, is checked before it is read.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::convert::GraphInput;
use super::ids::Numbering;
use super::open::{Graph, Opened};
use super::output::Format;
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::files::{self, FileRecord};

/// The time of each phase on the slowest rank.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Seconds {
    /// Reading and parsing the file, and numbering the nodes.
    pub load: f64,
    /// Moving the edges to their owners, degrees, and the layout of the rows.
    pub partition: f64,
    /// All steps of the iteration.
    pub iterate: f64,
    /// The list of the highest ranks and the output file.
    pub write: f64,
}

impl Seconds {
    /// The time of the iteration ÷ `steps` ÷ `edges`, in nanoseconds; 0 without any.
    pub(super) fn ns_per_edge(&self, steps: usize, edges: u64) -> f64 {
        let edge_steps = steps as f64 * edges as f64;
        if edge_steps > 0.0 { self.iterate * 1e9 / edge_steps } else { 0.0 }
    }
}

/// A job between its phases.
#[derive(Debug)]
pub(super) struct Frame<'f> {
    comm: &'f Communicator,
    output: Option<&'f Path>,
    lap: Instant,
    seconds: Seconds,
}

impl<'f> Frame<'f> {
    /// Refuses a job whose `options` are wrong, or whose `output` cannot be written, before hours
    /// are spent on its contents; removes the manifest of an earlier run. Collective.
    pub(super) fn start(
        comm: &'f Communicator,
        graph: &Path,
        output: Option<&'f Path>,
        options: Result<()>,
    ) -> Result<Self> {
        comm.agree(options)?;
        comm.agree(match (output, comm.rank()) {
            (Some(path), 0) => check_output(path, graph),
            _ => Ok(()),
        })?;
        Ok(Frame { comm, output, lap: Instant::now(), seconds: Seconds::default() })
    }

    /// Reads the graph, then what else is `given` in terms of its nodes, and moves the edges to
    /// their owners. Collective.
    pub(super) fn load<T>(
        &mut self,
        input: &GraphInput,
        given: impl FnOnce(&Numbering) -> Result<T>,
    ) -> Result<(Graph, T)> {
        let opened = Opened::open(self.comm, &input.graph, input.options, &input.columns)?;
        let given = self.comm.agree(given(opened.numbering()))?;
        self.seconds.load = self.lap();
        Ok((opened.partition(self.comm, input.options)?, given))
    }

    /// Says that the work is done, of which the iteration took so many seconds.
    pub(super) fn computed(&mut self, iterate: f64) {
        self.seconds.partition = self.lap() - iterate;
        self.seconds.iterate = iterate;
    }

    /// The phases, now that the output is written. Collective.
    pub(super) fn seconds(&mut self) -> Result<Seconds> {
        self.seconds.write = self.lap();
        let Seconds { load, partition, iterate, write } = self.seconds;
        let laps = self.comm.all_reduce_vec(&[load, partition, iterate, write], Op::Max)?;
        Ok(Seconds { load: laps[0], partition: laps[1], iterate: laps[2], write: laps[3] })
    }

    /// Writes the manifest, on the rank that wrote the files. Collective.
    pub(super) fn finish(
        self,
        command: &str,
        written: &[FileRecord],
        summary: &impl Serialize,
    ) -> Result<()> {
        self.comm.agree(match self.output {
            Some(path) if !written.is_empty() => {
                files::manifest(path, command, self.comm.ranks(), written, summary).map(|_| ())
            }
            _ => Ok(()),
        })
    }

    /// The seconds since the last lap.
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.lap, now)).as_secs_f64()
    }
}

fn check_output(path: &Path, graph: &Path) -> Result<()> {
    Format::of(path)?;
    files::check_folder(path)?;
    let real = |path: &Path| path.canonicalize().ok();
    if real(path).is_some_and(|output| Some(output) == real(graph)) {
        return Err(Error::input(format!(
            "{}: is the graph itself; the output would replace it",
            path.display()
        )));
    }
    files::remove_manifest(path)
}
