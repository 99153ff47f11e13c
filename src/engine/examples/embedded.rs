//! The engine alone in a program: open, write, read, scan, snapshot, and what survives a reopen.
//!
//! Run it with `cargo run -p basalt-engine --example embedded`.

use basalt_engine::{CfOptions, Db, Options, ReadOptions, Result, WriteBatch, WriteOptions};

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("basalt-embedded-{}", std::process::id()));
    let db = Db::open(&dir, Options::default())?;
    let users = db.open_cf("users", CfOptions::default())?;
    let index = db.open_cf("users_by_mail", CfOptions::default())?;

    // One batch over two column families: all of it or nothing, durable before `write` returns.
    let mut batch = WriteBatch::new();
    for (id, name, mail) in [
        ("1", "Ada", "ada@example.org"),
        ("2", "Grace", "grace@example.org"),
    ] {
        batch.put(&users, id.as_bytes(), name.as_bytes());
        batch.put(&index, mail.as_bytes(), id.as_bytes());
    }
    db.write(batch, WriteOptions::SYNC)?;

    // A snapshot keeps its moment while writes go on.
    let before = db.snapshot();
    db.put(&users, b"2", b"Grace Hopper", WriteOptions::NO_SYNC)?;
    let then = db.get_with(&users, b"2", &ReadOptions::at(&before))?;
    let now = db.get(&users, b"2")?;
    println!("user 2: {:?}, was {:?}", now, then);
    assert_eq!(then.as_deref(), Some(&b"Grace"[..]));
    assert_eq!(now.as_deref(), Some(&b"Grace Hopper"[..]));

    // A cursor, forward and backward, and the same as a Rust iterator.
    let mut cursor = db.iter(&index, &ReadOptions::default())?;
    cursor.seek(b"b")?;
    assert!(cursor.valid());
    println!("first mail from b on: {}", cursor.key().escape_ascii());
    for entry in db.range(&users, &ReadOptions::default())?.rev() {
        let (id, name) = entry?;
        println!("{} = {}", id.escape_ascii(), name.escape_ascii());
    }

    // Everything is there after a reopen.
    drop((cursor, before));
    db.close()?;
    let db = Db::open(&dir, Options::default())?;
    let users = db.cf("users")?;
    assert_eq!(db.get(&users, b"1")?.as_deref(), Some(&b"Ada"[..]));
    println!("reopened: {:?}", db.recovery());
    db.close()?;
    std::fs::remove_dir_all(&dir).expect("the directory is ours");
    Ok(())
}
