//! A broker inside a program: a producer and a consumer as two tasks, no socket anywhere.
//!
//! `cargo run --release -p ferrymq-node --example embedded`

use broker::PasswordHash;
use model::Table;
use node::{NewUser, Node, NodeOptions, local::wait};
use std::{error::Error, path::PathBuf, thread};

const MESSAGES: usize = 1_000;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let folder = std::env::args().nth(1).map_or_else(
        || std::env::temp_dir().join(format!("ferrymq-embedded-{}", std::process::id())),
        PathBuf::from,
    );
    let mut options = NodeOptions::new(&folder);
    options.administrator = Some(NewUser {
        name: "app".into(),
        // Nobody logs in from outside.
        password: PasswordHash::None.into(),
        vhost: "/".into(),
    });
    let node = Node::open(options)?;
    let session = node.connect("/", "app")?;
    wait(session.declare_queue("orders", true, Table::default()))?;

    let producer = session.clone();
    let producing = thread::spawn(move || {
        let confirms: Vec<_> = (0..MESSAGES)
            .map(|it| producer.publish("", "orders", format!("order {it}").as_bytes()))
            .collect();
        // Every one of them is on the disk when this loop ends.
        confirms.into_iter().try_for_each(wait)
    });
    let consuming = thread::spawn(move || {
        let mut orders = wait(session.consume("orders", 100))?;
        for _ in 0..MESSAGES {
            match wait(orders.next()) {
                Some(order) => order.accept(),
                None => break,
            }
        }
        Ok::<_, node::LocalError>(())
    });
    producing.join().map_err(|_| "the producer panicked")??;
    consuming.join().map_err(|_| "the consumer panicked")??;
    node.close()?;
    std::io::Write::write_all(
        &mut std::io::stdout(),
        format!("{MESSAGES} orders confirmed, consumed and accepted in {}\n", folder.display())
            .as_bytes(),
    )?;
    Ok(())
}
