//! Learning by gradients: the loop that rankers share, and that retrievers and sequences will.
//!
//! ```text
//! order       which sample comes when: a function of (seed, epoch)
//! loader      batches, made ready in threads of their own
//! Task        what differs between models: the batch, the forward pass, the loss
//! descend     epoch -> batch -> step -> checkpoint -> evaluate -> keep the best
//! checkpoint  all that the next step depends on, on disk
//! text        the classifier of texts: its batch and its loss
//! tables      the step of what a batch touched of the embedding tables
//! dense       the step of the network
//! norms       what its batch normalization remembers
//! collective  what several ranks that share each batch tell each other
//! shards      tables whose rows the ranks share out
//! ```

mod checkpoint;
mod collective;
mod dense;
mod descend;
mod loader;
mod norms;
mod order;
mod rank;
mod rank_learner;
mod rank_memory;
mod schedule;
mod shards;
mod tables;
mod text;

pub use checkpoint::{Checkpoint, CheckpointOptions, Counted, Fingerprints, Position};
pub use collective::{Alone, Collective, ThreadRank, all_gather, all_reduce, all_to_all};
pub use dense::{DenseGradients, DenseSteps};
pub use descend::{Checkpoints, Descent, DescentOptions, Learn, Step, StepRecord, Task, descend};
pub use order::Order;
pub use rank::{RankTraining, Rows, TrainedNetwork};
pub use rank_memory::rank_memory;
pub use schedule::rate_at;
pub use tables::TableSteps;
pub use text::{SomeTexts, TextTraining};
