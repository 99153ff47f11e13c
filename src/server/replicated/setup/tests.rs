//! What directories and settings mean together, and what is refused.

use std::ffi::OsString;

use super::*;

const FOUNDERS: &str = "1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003";

fn config(dir: &std::path::Path, flags: &[(&'static str, &str)]) -> Config {
    let mut all = vec![("path", dir.join("data").into_os_string())];
    all.extend(
        flags
            .iter()
            .map(|(key, value)| (*key, OsString::from(value))),
    );
    Config::load(&all, None, |_| None).unwrap()
}

fn refusal(config: &Config) -> String {
    match plan(config).unwrap_err() {
        Refused::Setting(what) | Refused::World(what) => what,
    }
}

#[tokio::test]
async fn a_founder_listens_where_the_others_look_for_it_and_restarts_without_settings() {
    let dir = tempfile::tempdir().unwrap();
    let founder = config(
        dir.path(),
        &[("store-id", "2"), ("initial-cluster", FOUNDERS)],
    );
    let planned = plan(&founder).unwrap();
    assert_eq!(planned.addr, "127.0.0.1:7002");
    assert_eq!(planned.status_addr, "127.0.0.1:7022");
    let cluster = prepare(&founder, &planned, Dialer::default())
        .await
        .unwrap();
    let identity = cluster.identity();
    assert_eq!((identity.store_id, identity.phase), (2, Phase::Forming));
    assert_eq!(cluster.directory.others(), [1, 3]);

    for flags in [
        &[][..],
        &[("store-id", "2"), ("initial-cluster", FOUNDERS)],
        &[("cluster-name", "basalt")],
    ] {
        let again = config(dir.path(), flags);
        let planned = plan(&again).unwrap();
        assert_eq!(planned.plan, Plan::Restart(identity.clone(), None));
        assert_eq!(planned.addr, "127.0.0.1:7002");
        assert_eq!(planned.status_addr, "127.0.0.1:7022");
        let same = prepare(&again, &planned, Dialer::default()).await.unwrap();
        assert_eq!(same.identity(), identity);
        assert_eq!(same.directory.all(), cluster.directory.all());
    }
    let moved = config(dir.path(), &[("addr", "127.0.0.1:7999")]);
    let planned = plan(&moved).unwrap();
    let cluster = prepare(&moved, &planned, Dialer::default()).await.unwrap();
    let own = cluster.directory.own();
    assert_eq!(
        (own.address.as_str(), own.address_version),
        ("127.0.0.1:7999", 1)
    );
}

#[tokio::test]
async fn settings_that_contradict_the_directory_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let founder = config(
        dir.path(),
        &[("store-id", "2"), ("initial-cluster", FOUNDERS)],
    );
    prepare(&founder, &plan(&founder).unwrap(), Dialer::default())
        .await
        .unwrap();
    for (flags, expected) in [
        (&[("store-id", "3")][..], "holds store 2, not store 3"),
        (&[("cluster-name", "other")], "not \"other\""),
        (
            &[("store-id", "2"), ("initial-cluster", "2=a:1")],
            "other founders",
        ),
    ] {
        let refusal = refusal(&config(dir.path(), flags));
        assert!(refusal.contains(expected), "{flags:?} gave {refusal:?}");
    }

    let dir = tempfile::tempdir().unwrap();
    data_dir::prepare(&dir.path().join("data")).unwrap();
    assert_eq!(
        plan(&config(dir.path(), &[])).unwrap().plan,
        Plan::Standalone
    );
    let refusal = refusal(&config(dir.path(), &[("join", "127.0.0.1:7001")]));
    assert!(refusal.contains("--join makes no sense"), "{refusal}");
}

#[test]
fn settings_that_make_no_sense_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (flags, expected) in [
        (
            &[("store-id", "1")][..],
            "--store-id needs --initial-cluster",
        ),
        (&[("cluster-name", "x")], "--cluster-name needs"),
        (&[("initial-cluster", FOUNDERS)], "needs --store-id"),
        (
            &[("initial-cluster", FOUNDERS), ("store-id", "4")],
            "has no store 4",
        ),
        (
            &[("initial-cluster", FOUNDERS), ("join", "a:1")],
            "exclude each other",
        ),
        (
            &[
                ("initial-cluster", FOUNDERS),
                ("store-id", "1"),
                ("advertise-addr", "a:1"),
            ],
            "says 127.0.0.1:7001 of store 1",
        ),
    ] {
        let refusal = refusal(&config(dir.path(), flags));
        assert!(refusal.contains(expected), "{flags:?} gave {refusal:?}");
        assert!(!dir.path().join("data").exists());
    }
}

#[test]
fn founders_are_ids_with_addresses_each_once() {
    let parse = |text: &str| parse_founders(text, Ok);
    assert_eq!(parse(FOUNDERS).unwrap().len(), 3);
    assert_eq!(parse(" 7=a:1 ").unwrap()[&7], "a:1");
    for (text, expected) in [
        ("", "is not of the form"),
        ("1", "is not of the form"),
        ("x=a:1", "is not of the form"),
        ("0=a:1", "no id of a store"),
        ("1048576=a:1", "no id of a store"),
        ("1=a:0", "port 0"),
        ("1=a:1,1=b:1", "store 1 is there twice"),
        ("1=a:1,2=a:1", "a:1 is there twice"),
        (
            "1=a:1,2=a:2,3=a:3,4=a:4,5=a:5,6=a:6,7=a:7,8=a:8,9=a:9,10=b:1",
            "the limit is 9",
        ),
    ] {
        let refusal = parse(text).unwrap_err();
        assert!(refusal.contains(expected), "{text:?} gave {refusal:?}");
    }
}
