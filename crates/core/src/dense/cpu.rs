//! The operations on the CPU.

use super::{Cpu, DenseBackend};

impl DenseBackend for Cpu {}
