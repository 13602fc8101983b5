//! What a seeder may say of a lane that it does not know from the beginning.

use tallow_types::SlotIndex;
use tallow_types::fault::Code;
use tallow_types::wire::{Request, Response};

use super::world::*;

const SLOT: SlotIndex = SlotIndex::new(0);

/// Goal: a seeder that lost its folder is not talked into "I never signed" while its ledger is old. Method: ask it to
/// accept before it has compared its lanes with the ledger, and after.
#[tokio::test]
async fn nothing_is_accepted_before_the_ledger_is_known() {
    let mut world = World::new(1).await;
    world.twin.kill(world.key_of(0));
    world.seeders.remove(0);
    std::fs::remove_dir_all(world.seeder_dir(0)).unwrap();
    let seeder = world.start_seeder(0);
    let accept = || Request::Accept { terms: world.terms(0), slot: SLOT };
    assert_eq!(world.ask(0, accept()).await.unwrap_err().code(), Code::Behind);
    assert_eq!(seeder.adopt().unwrap(), 0);
    assert!(matches!(world.ask(0, accept()).await, Ok(Response::Accepted(_))));
}
