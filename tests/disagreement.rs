//! Ranks on different nodes that call different things find out, though they compare nothing
//! beforehand: threads that pretend to live on three nodes.

use rankwise::communicator::{Communicator, Settings};
use rankwise::element::Op;
use rankwise::error::{ErrorKind, Result};
use rankwise::launch::threads_on_nodes;

#[test]
fn ranks_on_different_nodes_that_disagree_find_out() {
    let kinds: [fn(&Communicator) -> Result<()>; 4] = [
        |c| c.all_reduce_vec(&[1f32; 10], Op::Max).map(|_| ()),
        |c| c.all_reduce_vec(&[1f32; 11], Op::Sum).map(|_| ()),
        |c| c.all_reduce_vec(&[1i32; 10], Op::Sum).map(|_| ()),
        |c| c.broadcast(&mut [1f32; 10], 0),
    ];
    for wrong in kinds {
        let nodes = [0, 1, 2];
        let error = threads_on_nodes(&nodes, Settings::default(), |c| {
            for _ in 0..20 {
                c.all_reduce_vec(&[c.rank() as u64], Op::Sum)?;
            }
            match c.rank() {
                1 => wrong(c),
                _ => c.all_reduce_vec(&[1f32; 10], Op::Sum).map(|_| ()),
            }
        })
        .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Disagreement, "{error}");
        assert!(error.message.contains("all_reduce(f32, n = 10, sum)"), "{error}");
        assert!(error.message.contains("rank 1"), "{error}");
        assert!(error.message.matches("disagreement.rs:").count() == 2, "{error}");
    }
}
