//! A listener that prints what the engine does, and what the engine says of itself afterwards.

use std::sync::Arc;

use basalt_engine::{CfOptions, Db, Event, Options, ReadOptions, WriteOptions};

fn main() -> Result<(), basalt_engine::Error> {
    let path = std::env::temp_dir().join(format!("basalt-listener-{}", std::process::id()));
    let db = Db::open(&path, Options::default())?;
    db.add_listener(Arc::new(|event: &Event| println!("{event:?}")));
    let cf = db.open_cf(
        "data",
        CfOptions {
            write_buffer_bytes: 1 << 20,
            ..CfOptions::default()
        },
    )?;
    for i in 0..50_000_u32 {
        db.put(&cf, &i.to_be_bytes(), &[7; 100], WriteOptions::NO_SYNC)?;
    }
    db.compact_range(&cf, None, None)?;
    println!(
        "{}",
        db.explain(&cf, &17_u32.to_be_bytes(), &ReadOptions::default())?
    );
    println!("{:?}", db.stats().times);
    db.close()?;
    let _ = std::fs::remove_dir_all(&path);
    Ok(())
}
