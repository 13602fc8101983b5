//! Money for seeders whose key is new, because their folder was deleted: the faucet gives them what genesis gave the first
//! ones, for their terms and their collateral.

use tallow_types::policy::Policy;

use crate::commands::wallet::endow_all;
use crate::context::Chosen;
use crate::dev::folder::{Folder, Plan};
use crate::dev::remote::Remote;
use crate::failure::Result;
use crate::home::private_dir;
use crate::keyfile::NodeKey;
use crate::network::Network;

/// Makes the keys that are missing, and endows every seeder that the ledger doesn't know. The validator must be up.
pub async fn seeders(folder: &Folder, plan: &Plan, network: &Network) -> Result<()> {
    let mut accounts = Vec::new();
    for name in plan.seeder_names() {
        private_dir(&folder.path(&name))?;
        let key = NodeKey::load_or_make(&folder.key_file(&name))?.keypair().public();
        accounts.push(Policy::Key(key).account());
    }
    let remote = Remote::connect(network).await?;
    let unknown = remote.unknown(&accounts).await;
    remote.close().await;
    let unknown = unknown?;
    if !unknown.is_empty() {
        let chosen = Chosen { network: network.clone(), dev: Some(folder.clone()) };
        endow_all(&chosen, &unknown).await?;
    }
    Ok(())
}
