//! What the model directory promises: what is saved comes back, whatever fails, and damage is refused.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod corrupt;
mod crash;
mod hostile;
mod old_formats;
mod power_loss;
mod round_trip;
mod sample;
mod tamper;
