//! The fence of a lane in every order in which a sender, the bus, a deadline and the drain can come to it. Each comes under
//! the lane's lock, so that these orders are all there are; what the store's thread tells comes when it likes.

use super::*;

/// Plays every order of what each does, in which each does it in its own order; how many there were.
async fn in_every_order(each: &[&[Step]]) -> usize {
    let mut model = Model::new(1 << 30).await;
    let mut orders = Vec::new();
    collect(each, &mut vec![0; each.len()], &mut Vec::new(), &mut orders);
    for (run, order) in orders.iter().enumerate() {
        model.ground.key.subject = format!("vehicle {run}").into();
        model.events.clear();
        model.log.clear();
        for step in order {
            model.take(*step).await;
        }
        model.finish().await;
        model.check().await;
    }
    orders.len()
}

fn collect(each: &[&[Step]], at: &mut Vec<usize>, order: &mut Vec<Step>, orders: &mut Vec<Vec<Step>>) {
    let mut ended = true;
    for (who, steps) in each.iter().enumerate() {
        if let Some(step) = steps.get(at[who]) {
            ended = false;
            at[who] += 1;
            order.push(*step);
            collect(each, at, order, orders);
            order.pop();
            at[who] -= 1;
        }
    }
    if ended {
        orders.push(order.clone());
    }
}

#[tokio::test]
async fn an_event_that_fails_while_its_deadline_passes_and_the_drain_comes() {
    let each: [&[Step]; 4] = [
        &[Step::Admit, Step::Admit],
        &[Step::Acknowledge, Step::FailFrom(0)],
        &[Step::Expire],
        &[Step::Drain, Step::Drain],
    ];
    assert_eq!(in_every_order(&each).await, 630);
}

#[tokio::test]
async fn a_drain_that_is_late_while_events_come_and_the_deadline_of_one_passes() {
    let each: [&[Step]; 3] = [
        &[Step::AdmitParked, Step::Drain, Step::Late, Step::LateComes],
        &[Step::Admit, Step::Expire],
        &[Step::Drain, Step::Drain],
    ];
    assert_eq!(in_every_order(&each).await, 420);
}

#[tokio::test]
async fn an_event_that_is_lost_track_of_and_tried_again_while_its_deadline_passes() {
    let each: [&[Step]; 4] = [
        &[Step::Admit, Step::Admit],
        &[Step::LoseFrom(0), Step::Acknowledge],
        &[Step::Expire, Step::Resume],
        &[Step::Drain],
    ];
    assert_eq!(in_every_order(&each).await, 630);
}
