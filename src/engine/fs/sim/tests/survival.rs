//! What crashes leave: nothing unsynced for certain, nothing synced lost, and between them every legal
//! state, torn sectors and single entries included.

use super::*;

#[test]
fn unsynced_bytes_and_entries_are_lost_and_kept_as_asked() {
    let fs = disk();
    put(&fs, "/db/synced", b"1", true);
    fs.sync_dir(p("/db")).unwrap();
    put(&fs, "/db/no_entry", b"2", true);
    let log = fs.open_log(p("/db/synced"), 3).unwrap();
    log.write_at(1, b"xx").unwrap();

    let lost = fs.crash(Survival::LoseUnsynced);
    assert_eq!(lost.files(), [p("/db/synced")]);
    assert_eq!(get(&lost, "/db/synced").unwrap(), b"1");
    let kept = fs.crash(Survival::KeepAll);
    assert_eq!(kept.files(), [p("/db/no_entry"), p("/db/synced")]);
    assert_eq!(get(&kept, "/db/synced").unwrap(), b"1xx");
    assert_eq!(
        get(&kept.crash(Survival::LoseUnsynced), "/db/synced").unwrap(),
        b"1xx"
    );

    log.sync().unwrap();
    fs.sync_dir(p("/db")).unwrap();
    assert_eq!(fs.crash(Survival::LoseUnsynced).hash(), fs.hash());
}

#[test]
fn after_a_process_death_all_is_there_and_a_power_cut_still_takes_the_unsynced() {
    let fs = disk();
    put(&fs, "/db/a", b"abc", false);
    let image = fs.crash(Survival::ProcessDeath);
    assert_eq!(image.hash(), fs.hash());
    assert_eq!(
        image.crash(Survival::LoseUnsynced).files(),
        Vec::<PathBuf>::new()
    );
    fs.sync_dir(p("/db")).unwrap();
    image.sync_dir(p("/db")).unwrap();
    assert_eq!(
        get(&image.crash(Survival::LoseUnsynced), "/db/a").unwrap(),
        b""
    );
}

#[test]
fn synced_state_survives_every_random_crash() {
    let fs = disk();
    put(&fs, "/db/a", &[1; 3000], true);
    fs.sync_dir(p("/db")).unwrap();
    for (seed, image) in images(&fs) {
        assert_eq!(image.hash(), fs.hash(), "seed {seed}");
    }
}

#[test]
fn a_directory_whose_entry_is_not_synced_goes_with_all_that_is_in_it() {
    let fs = SimFs::new();
    fs.create_dir_all(p("/db")).unwrap();
    put(&fs, "/db/a", b"a", true);
    fs.sync_dir(p("/db")).unwrap();
    assert_eq!(
        fs.crash(Survival::LoseUnsynced).list_dir(p("/")).unwrap(),
        Vec::<String>::new()
    );
    fs.sync_dir(p("/")).unwrap();
    assert_eq!(
        get(&fs.crash(Survival::LoseUnsynced), "/db/a").unwrap(),
        b"a"
    );
}

#[test]
fn sectors_are_kept_and_lost_one_by_one_and_never_mixed() {
    let fs = disk();
    let log = fs.open_log(p("/db/1.log"), 4 * 512).unwrap();
    log.sync().unwrap();
    fs.sync_dir(p("/db")).unwrap();
    log.write_at(0, &[1; 4 * 512]).unwrap();
    // Sectors 1 and 2 again, neither whole.
    log.write_at(700, &[2; 700]).unwrap();
    let mut states = BTreeSet::new();
    for (seed, image) in images(&fs) {
        let content = get(&image, "/db/1.log").unwrap();
        assert_eq!(content.len(), 4 * 512);
        let state: Vec<u8> = content
            .chunks(512)
            .enumerate()
            .map(|(i, sector)| {
                let first = [vec![0; 512], vec![1; 512]];
                let mut again = vec![1; 512];
                again[if i == 1 {
                    700 - 512..512
                } else {
                    0..1400 - 1024
                }]
                .fill(2);
                match sector {
                    s if s == first[0] => 0,
                    s if s == first[1] => 1,
                    s if (i == 1 || i == 2) && s == again => 2,
                    _ => panic!("seed {seed}: sector {i} is a mixture"),
                }
            })
            .collect();
        states.insert(state);
    }
    // Every state: 2 * 3 * 3 * 2. The one with all and the one with none are among them.
    assert!(
        states.len() >= 33,
        "{} of 36 states seen: {states:?}",
        states.len()
    );
}

#[test]
fn an_unsynced_length_may_be_old_or_new_and_what_is_missing_reads_as_zeros() {
    let fs = disk();
    put(&fs, "/db/a", b"", true);
    fs.sync_dir(p("/db")).unwrap();
    let mut file = fs.create(p("/db/a")).unwrap();
    file.append(&[1; 600]).unwrap();
    file.append(&[2; 600]).unwrap();
    let mut seen = BTreeSet::new();
    for (seed, image) in images(&fs) {
        let content = get(&image, "/db/a").unwrap();
        assert!(
            [0, 600, 1200].contains(&content.len()),
            "seed {seed}: {}",
            content.len()
        );
        for (i, byte) in content.iter().enumerate() {
            assert!(
                [0, if i < 600 { 1 } else { 2 }].contains(byte),
                "seed {seed}: {byte} at {i}"
            );
        }
        seen.insert((content.len(), content.contains(&0)));
    }
    let all = [
        (0, false),
        (600, false),
        (600, true),
        (1200, false),
        (1200, true),
    ];
    assert_eq!(seen, BTreeSet::from(all));

    // A grown log: short, or long and zeros.
    let log = fs.open_log(p("/db/1.log"), 1024).unwrap();
    fs.sync_dir(p("/db")).unwrap();
    let lens: BTreeSet<usize> = images(&fs)
        .map(|(_, image)| get(&image, "/db/1.log").unwrap().len())
        .collect();
    assert_eq!(lens, BTreeSet::from([0, 1024]));
    log.sync().unwrap();
    assert_eq!(
        get(&fs.crash(Survival::LoseUnsynced), "/db/1.log").unwrap(),
        [0; 1024]
    );
}

#[test]
fn a_file_emptied_and_not_synced_may_have_its_old_content_back() {
    let fs = disk();
    put(&fs, "/db/a", b"old", true);
    fs.sync_dir(p("/db")).unwrap();
    put(&fs, "/db/a", b"fresh", false);
    let contents: BTreeSet<Vec<u8>> = images(&fs)
        .map(|(_, image)| get(&image, "/db/a").unwrap())
        .collect();
    for expected in [&b"old"[..], b"", b"fresh", b"\0\0\0\0\0"] {
        assert!(contents.contains(expected), "{expected:?} in {contents:?}");
    }
}

#[test]
fn entries_of_different_names_are_kept_and_lost_independently_of_each_other_and_of_data() {
    let fs = disk();
    put(&fs, "/db/a", b"a", true);
    put(&fs, "/db/b", b"b", false);
    let mut seen = BTreeSet::new();
    for (_, image) in images(&fs) {
        seen.insert((get(&image, "/db/a"), get(&image, "/db/b")));
    }
    let some = |text: &[u8]| Some(text.to_vec());
    let mut all = BTreeSet::new();
    for a in [None, some(b"a")] {
        for b in [None, some(b""), some(b"b"), some(b"\0")] {
            all.insert((a.clone(), b));
        }
    }
    assert_eq!(seen, all);
}

#[test]
fn a_rename_is_kept_or_lost_whole() {
    let fs = disk();
    put(&fs, "/db/CURRENT", b"old", true);
    fs.sync_dir(p("/db")).unwrap();
    put(&fs, "/db/tmp", b"new", true);
    fs.rename(p("/db/tmp"), p("/db/CURRENT")).unwrap();
    put(&fs, "/db/tmp", b"next", true);
    let mut seen = BTreeMap::new();
    for (seed, image) in images(&fs) {
        let state = (get(&image, "/db/CURRENT").unwrap(), get(&image, "/db/tmp"));
        seen.entry(state).or_insert(seed);
    }
    let some = |text: &[u8]| Some(text.to_vec());
    let legal = [
        (b"old".to_vec(), None),
        (b"old".to_vec(), some(b"new")),
        (b"new".to_vec(), None),
        (b"new".to_vec(), some(b"next")),
    ];
    assert_eq!(
        seen.into_keys().collect::<BTreeSet<_>>(),
        BTreeSet::from(legal)
    );
}

#[test]
fn syncing_either_directory_of_a_rename_makes_the_whole_rename_durable() {
    for synced in ["/db", "/other"] {
        let fs = disk();
        fs.create_dir_all(p("/other")).unwrap();
        fs.sync_dir(p("/")).unwrap();
        put(&fs, "/other/a", b"a", true);
        put(&fs, "/other/b", b"b", true);
        fs.rename(p("/other/a"), p("/db/a")).unwrap();
        fs.sync_dir(p(synced)).unwrap();
        for (seed, image) in images(&fs) {
            assert_eq!(get(&image, "/db/a").unwrap(), b"a", "seed {seed}");
            assert_eq!(get(&image, "/other/a"), None, "seed {seed}");
        }
        let kept = images(&fs)
            .filter(|(_, image)| get(image, "/other/b").is_some())
            .count();
        assert_eq!(kept == 400, synced == "/other", "{kept}");
    }
}

#[test]
fn an_unsynced_removal_may_be_undone_and_a_link_is_an_entry_of_its_own() {
    let fs = disk();
    put(&fs, "/db/a", b"a", true);
    fs.sync_dir(p("/db")).unwrap();
    fs.hard_link(p("/db/a"), p("/db/b")).unwrap();
    fs.remove_file(p("/db/a")).unwrap();
    let seen: BTreeSet<Vec<PathBuf>> = images(&fs).map(|(_, image)| image.files()).collect();
    assert_eq!(
        seen.len(),
        4,
        "each of both entries is there or not: {seen:?}"
    );
    fs.sync_dir(p("/db")).unwrap();
    for (seed, image) in images(&fs) {
        assert_eq!(image.files(), [p("/db/b")], "seed {seed}");
        assert_eq!(get(&image, "/db/b").unwrap(), b"a");
    }
}

#[test]
fn the_same_seed_gives_the_same_image() {
    let fs = disk();
    for i in 0..5 {
        put(&fs, &format!("/db/{i}"), &[i; 3000], false);
    }
    let hash = |seed| fs.crash(Survival::Random { seed }).hash();
    assert!((0..50).all(|seed| hash(seed) == hash(seed)));
    assert!((0..50).map(hash).collect::<BTreeSet<_>>().len() > 30);
}

#[test]
fn long_unsynced_runs_are_thinned_and_stay_true_to_the_newest_bytes() {
    let fs = disk();
    let log = fs.open_log(p("/db/1.log"), 8192).unwrap();
    fs.sync_dir(p("/db")).unwrap();
    log.sync().unwrap();
    for i in 0..20_000_u32 {
        log.write_at(u64::from(i % 2048) * 4, &i.to_le_bytes())
            .unwrap();
    }
    let id = fs.disk().tree.find_file(p("/db/1.log")).unwrap();
    assert!(fs.disk().file(id).undecided() < 10_000);
    assert_eq!(
        get(&fs.crash(Survival::KeepAll), "/db/1.log"),
        get(&fs, "/db/1.log")
    );
    // The newest image of each sector is still among what a power cut may leave.
    let live = get(&fs, "/db/1.log").unwrap();
    let kept = images(&fs)
        .filter(|(_, image)| get(image, "/db/1.log").unwrap() == live)
        .count();
    assert!(kept > 0);
    log.sync().unwrap();
    assert_eq!(
        get(&fs.crash(Survival::LoseUnsynced), "/db/1.log").unwrap(),
        live
    );
}
