//! A few calls against a server on this machine: `basalt server`, then `cargo run -p basalt-client --example first_steps`.
//! Another address may be given: `-- HOST:PORT`.

use basalt_client::{Batch, Error, KeyRange, blocking::Client};

fn main() -> Result<(), Error> {
    let addr = std::env::args().nth(1);
    let client = Client::connect([addr.unwrap_or_else(|| "127.0.0.1:20160".to_owned())])?;
    client.put("example/1", "one")?;
    client.write(Batch::new().put("example/2", "two").delete("example/1"))?;
    println!("1: {:?}", client.get("example/1")?);
    for pair in client.scan(KeyRange::prefix("example/")) {
        let pair = pair?;
        println!("{:?} = {:?}", pair.key, pair.value);
    }
    client.delete_range(KeyRange::prefix("example/"))?;
    println!("left: {}", client.count(KeyRange::prefix("example/"))?);
    Ok(())
}
