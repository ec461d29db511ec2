//! stub
use crate::error::Result;
/// x
#[derive(Debug, clap::Subcommand)]
pub(super) enum PlanCommand {
    /// x
    Show,
}
impl PlanCommand {
    pub(super) fn run(&self, _o: crate::launch::Output) -> Result<()> {
        Ok(())
    }
}
