//! What earlier blocks of dates left behind: the tables that results are made of.
//!
//! A panel that is larger than memory is studied block by block. Every analysis computes rows of
//! its own dates, gathers them from all ranks and summarises the table. With a [`Past`] the table
//! is that of all dates so far, so that the results of the last block are those of the whole panel,
//! with the same bits: no sum is ever split where blocks end.
//!
//! Tables are known by the order in which they are asked for, which is the same in every block.
//! Memory: dates × factors × horizons numbers a table, which is the panel divided by the number of
//! assets. Time: a summary for each block, which reads tables and no panel.

use super::edges::last_rows;
use super::panel::{Panel, rows_before_of};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};

/// Tables of the dates so far. The default is that of a whole panel: none.
#[derive(Debug, Default)]
pub struct Past {
    dates: Vec<i32>,
    tables: Vec<Table>,
    /// The table that is asked for next.
    next: usize,
    /// Whether a block follows.
    more: bool,
}

#[derive(Debug)]
enum Table {
    Rows(Vec<f64>),
    Sums(Vec<i64>),
    /// The last rows before the next block.
    Last(Vec<u32>),
}

impl Past {
    /// Goes on to the block with these dates; `more` tells whether another one follows.
    pub fn begin(&mut self, dates: &[i32], more: bool) {
        self.dates.extend_from_slice(dates);
        (self.next, self.more) = (0, more);
    }

    /// The dates so far; those of `panel` if it is no block.
    pub fn dates(&self, panel: &Panel) -> Vec<i32> {
        if self.dates.is_empty() { panel.dates.clone() } else { self.dates.clone() }
    }

    /// The rows of all ranks and of all dates so far, in the order of dates. Collective.
    pub fn gather(&mut self, comm: &Communicator, own: &[f64]) -> Result<Vec<f64>> {
        let rows = comm.all_gather_vec(own)?.0;
        match self.table(|| Table::Rows(Vec::new()))? {
            Table::Rows(all) if all.is_empty() => all.clone_from(&rows),
            Table::Rows(all) => {
                all.extend_from_slice(&rows);
                return Ok(all.clone());
            }
            Table::Sums(_) | Table::Last(_) => return Err(out_of_order()),
        }
        Ok(rows)
    }

    /// The sums of the integers of all ranks and of all dates so far. Collective.
    pub fn sum(&mut self, comm: &Communicator, own: &[i64]) -> Result<Vec<i64>> {
        let sums = comm.all_reduce_vec(own, Op::Sum)?;
        match self.table(|| Table::Sums(vec![0; own.len()]))? {
            Table::Sums(all) if all.len() == sums.len() => {
                all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
                Ok(all.clone())
            }
            _ => Err(out_of_order()),
        }
    }

    /// The `before` rows of `matrix` (own dates × width) that precede the own ones, from other
    /// ranks and from earlier blocks; zeros before the first date. Collective.
    pub fn rows_before(
        &mut self,
        comm: &Communicator,
        panel: &Panel,
        width: usize,
        matrix: &[u32],
        before: usize,
    ) -> Result<Vec<u32>> {
        let more = self.more;
        let Table::Last(earlier) = self.table(|| Table::Last(Vec::new()))? else {
            return Err(out_of_order());
        };
        let rows = rows_before_of(comm, &panel.sharding, width, matrix, before, earlier)?;
        if more {
            *earlier = last_rows(comm, panel, width, earlier, matrix, before)?;
        }
        Ok(rows)
    }

    fn table(&mut self, new: impl FnOnce() -> Table) -> Result<&mut Table> {
        if self.next == self.tables.len() {
            self.tables.push(new());
        }
        self.next += 1;
        self.tables.get_mut(self.next - 1).ok_or_else(out_of_order)
    }
}

fn out_of_order() -> Error {
    Error::internal("blocks ask for tables in different orders")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;
    use crate::sharding::Sharding;

    #[test]
    fn tables_grow_to_those_of_the_whole_panel() {
        let (dates, n) = (17, 3);
        let row = |date: usize| (0..n).map(move |a| (date * n + a) as f64);
        for ranks in [1, 2, 3, 5] {
            for block in [1, 2, 7, 17] {
                launch::threads(ranks, |comm| {
                    let mut past = Past::default();
                    for start in (0..dates).step_by(block) {
                        let end = (start + block).min(dates);
                        let sharding = Sharding::even(end - start, ranks);
                        let own = sharding.range(comm.rank());
                        let own = start + own.start..start + own.end;
                        let panel = Panel {
                            dates: (start as i32..end as i32).collect(),
                            assets: vec![String::new(); n],
                            rank: comm.rank(),
                            sharding,
                            ..Panel::default()
                        };
                        past.begin(&panel.dates, end < dates);
                        assert_eq!(past.dates(&panel).len(), end);
                        let mine: Vec<f64> = own.clone().flat_map(row).collect();
                        let all: Vec<f64> = (0..end).flat_map(row).collect();
                        assert_eq!(past.gather(comm, &mine)?, all);
                        let count = past.sum(comm, &[own.len() as i64, 1])?;
                        assert_eq!(count[0], end as i64);
                        // Numbers from 1, since nothing is 0.
                        let marks: Vec<u32> = mine.iter().map(|&x| x as u32 + 1).collect();
                        let before = past.rows_before(comm, &panel, n, &marks, 4)?;
                        let first = own.start as i64 - 4;
                        for (i, &mark) in before.iter().enumerate() {
                            let place = first * n as i64 + i as i64;
                            assert_eq!(i64::from(mark), (place + 1).max(0));
                        }
                        let rows = if own.is_empty() { 0 } else { 4 };
                        assert_eq!(before.len(), rows * n);
                    }
                    Ok(())
                })
                .unwrap();
            }
        }
    }

    #[test]
    fn another_order_is_refused() {
        let found = launch::threads(1, |comm| {
            let mut past = Past::default();
            past.begin(&[0], true);
            past.gather(comm, &[1.0])?;
            past.begin(&[1], false);
            past.sum(comm, &[1])
        });
        assert!(found.unwrap_err().message.contains("different orders"));
    }
}
