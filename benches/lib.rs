//! Shapes, generators and measurements that the benches share.

pub mod candle;
pub mod ceilings;
pub mod factors;
pub mod interactions;
pub mod measure;
pub mod networks;
