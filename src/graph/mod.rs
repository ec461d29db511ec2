//! Graphs: reading, distributing and ranking.
//!
//! | file | what |
//! | --- | --- |
//! | `load` | a graph in any format, chosen by content or name, as edges between indices |
//! | `compression` | plain, gzip and zstd files, told apart by their first bytes |
//! | `source` | the text of a file as blocks of whole lines, each on one rank |
//! | `edge_list` | the text format: lines to edges, and messages for malformed ones |
//! | `matrix_market` | sparse matrices in text, as SuiteSparse has them |
//! | `metis` | adjacency lists in text, as METIS and KaHIP read them |
//! | `gap` | the binary format of the GAP benchmarks |
//! | `bvgraph/` | compressed web graphs, as the WebGraph framework has them |
//! | `parquet_table`, `columns` | edge tables in Parquet files; which columns are the edges |
//! | `binary/` | `.rwg`, our own format, mapped and shared by the ranks of a node |
//! | `open` | a graph from any of these, with its rows where they belong |
//! | `names` | many short names in one allocation, and on the wire |
//! | `ids`, `id_lookup` | ids of the user to dense indices in one canonical order, and back |
//! | `column` | values of edges, in memory or in a mapped file |
//! | `rows`, `row_sort` | the incoming edges of a range of nodes, in canonical order |
//! | `rounds` | edges on their way to the owners of their targets, some at a time |
//! | `partition` | who owns which nodes; moves the edges to the owners of their targets |
//! | `scheme`, `cost` | one dimension or two, all values or needed ones; what each would take |
//! | `grid` | two dimensions: rows of ranks share rows of edges, and sums travel |
//! | `exchange` | the contributions of an iteration, moved as was chosen |
//! | `delta` | ranks that hardly changed are not sent again |
//! | `generator` | Kronecker and uniform graphs, the same for any number of ranks |
//! | `node_values` | files of node ids and values, such as a personalization |
//! | `order` | nodes by falling degree, and back |
//! | `options` | what `pagerank` may be asked for: rules for stopping, dangling nodes, scale |
//! | `step` | one step of the iteration for the own nodes |
//! | `pagerank` | the equation, the iteration and its verifier |
//! | `personalized` | PageRank for many sources, several at a time |
//! | `hits` | hubs and authorities |
//! | `traffic`, `progress` | the bytes of an iteration; how far a long run has come |
//! | `output`, `csv_output`, `parquet_output`, `npy` | result files, and the highest ranks |
//! | `frame` | what all jobs share: checks before, phases timed, the manifest at the end |
//! | `job` | all of it in order: what the command `pagerank` does |
//! | `whole`, `export`, `info`, `convert` | a graph on one rank: written, described |
//!
//! The result is a function of the graph and the options: the same bits at any number of ranks and
//! threads, for plain and packed files, for any order of the lines, and in any format.

pub mod binary;
pub mod bvgraph;
pub mod column;
pub mod columns;
mod compression;
pub mod convert;
pub mod cost;
mod csv_output;
mod delta;
pub mod edge_list;
mod exchange;
pub mod export;
mod frame;
pub mod gap;
pub mod generator;
mod grid;
pub mod hits;
mod id_lookup;
pub mod ids;
pub mod info;
pub mod job;
pub mod load;
pub mod matrix_market;
pub mod metis;
pub mod names;
pub mod node_values;
mod npy;
pub mod open;
pub mod options;
pub mod order;
pub mod output;
pub mod pagerank;
mod parquet_output;
mod parquet_table;
pub mod partition;
pub mod personalized;
pub mod progress;
mod rounds;
mod row_sort;
pub mod rows;
pub mod scheme;
pub mod source;
pub mod step;
pub mod traffic;
pub mod whole;

pub use job::{PageRankJob, PageRankSummary, run};
