//! What operators did: committed with the change that it tells of, or not at all, and read newest first.

use fleetbus::event::{AccountId, Millis};
use fleetbus::replay::{Act, Acts, Change, Entry, Table};

use crate::support::{Running, limits};

fn act(act: &'static str, object: &str) -> Act {
    Act {
        at: Millis(7),
        who: "ops".into(),
        act,
        account: Some(AccountId::new("acme")),
        object: object.into(),
        before: None,
        after: Some("{}".into()),
    }
}

#[tokio::test]
async fn an_act_is_committed_with_its_changes_and_survives() {
    let running = Running::start(limits()).await;
    let acme = AccountId::new("acme");
    let entry = Entry { account: acme.clone(), key: "t1".into(), value: "{}".into(), saved_at: Millis(7) };
    let put = Change::Put(Table::Tokens, entry.clone());
    running.store.act(vec![put], act("token.create", "t1")).await.unwrap();
    let gone = Change::Remove(Table::Tokens, acme.clone(), "t1".into());
    running
        .store
        .act(vec![gone, Change::Put(Table::Switches, entry)], act("token.revoke", "t1"))
        .await
        .unwrap();
    running.store.act(Vec::new(), act("reload", "")).await.unwrap();

    let (running, recovered) = running.restart(limits(), None).await;
    assert!(recovered.tokens.is_empty());
    let switches = running.store.entries(Table::Switches, Some(acme.clone()), None).await.unwrap();
    assert_eq!(switches.len(), 1);
    let acts = async |acts: Acts, before, limit| {
        let found = running.store.acts(&acts, before, limit).await.unwrap();
        found.into_iter().map(|act| (act.seq, act.act)).collect::<Vec<_>>()
    };
    let all = [(3, "reload".to_owned()), (2, "token.revoke".to_owned()), (1, "token.create".to_owned())];
    assert_eq!(acts(Acts::default(), None, 10).await, all);
    assert_eq!(acts(Acts::default(), Some(3), 1).await, all[1..2]);
    assert_eq!(acts(Acts { act: Some("token.".into()), ..Acts::default() }, None, 10).await, all[1..]);
    assert_eq!(acts(Acts { account: Some(AccountId::new("b")), act: None }, None, 10).await, []);
}
