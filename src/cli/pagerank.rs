//! stub
use super::Session;
use crate::error::Result;
/// x
#[derive(Debug, clap::Args)]
pub(super) struct Pagerank {}
impl Pagerank {
    pub(super) fn run(&self, _s: Session<'_>) -> Result<()> {
        Ok(())
    }
}
