//! sync(2), fsync(2) and their kin: what the container asks the disk to keep includes its owners.

use crate::call::{errno, Call, Outcome, GO_ON};
use crate::world::World;

pub fn sync(world: &mut World, _: &Call) -> Outcome {
    world.owners.sync().map_err(errno)?;
    GO_ON
}
