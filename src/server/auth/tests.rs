//! Every right against every family and prefix, and what is refused of a file of rights.

use super::*;

const FILE: &str = r#"
[[role]]
name = "app"
grants = [
    { can = ["read", "write"], cf = "default", prefix = "app/" },
    { can = ["read"], prefix-hex = "00ff" },
]
[[role]]
name = "operator"
grants = [{ can = ["admin"] }]
[[role]]
name = "all"
grants = [{ can = ["read", "write"] }]

[[token]]
name = "a"
sha256 = "HASH-A"
roles = ["app"]
[[token]]
name = "b"
sha256 = "HASH-B"
roles = ["app", "operator"]
[[certificate]]
name = "alice"
roles = ["all"]
[[certificate]]
name = "nobody"
roles = []
"#;

fn text() -> String {
    let hex = |token: &[u8]| {
        let bytes = hash(token).map(|byte| format!("{byte:02x}"));
        bytes.concat()
    };
    FILE.replace("HASH-A", &hex(b"token-a"))
        .replace("HASH-B", &hex(b"token-b"))
}

fn auth(table: Table) -> Auth {
    Auth {
        file: PathBuf::new(),
        table: RwLock::new(Arc::new(table)),
        peer: Arc::new(Who::peer()),
        stamp: Mutex::new(None),
    }
}

fn by_token(token: &str) -> Result<Arc<Who>, Status> {
    let header = format!("Bearer {token}");
    auth(parse(&text()).unwrap()).who(Some(header.as_bytes()), None)
}

fn by_certificate(names: &[&str], is_peer: bool) -> Result<Arc<Who>, Status> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let identity = Identity { names, is_peer };
    auth(parse(&text()).unwrap()).who(None, Some(&identity))
}

#[test]
fn a_hash_is_sha_256() {
    let shown: String = hash(b"abc").map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(
        shown,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

/// Every caller x right x family x key.
#[test]
fn nothing_is_allowed_but_what_is_granted() {
    let callers = [
        by_token("token-a").unwrap(),
        by_token("token-b").unwrap(),
        by_certificate(&["x", "alice"], false).unwrap(),
        by_certificate(&["nobody"], false).unwrap(),
        by_certificate(&["a-store"], true).unwrap(),
    ];
    let keys: [&[u8]; 8] = [
        b"",
        b"app",
        b"app/",
        b"app/x",
        b"app0",
        b"\x00\xff",
        b"\x00\xff\x01",
        b"\x01",
    ];
    let mut cells = 0;
    for (caller, who) in callers.iter().enumerate() {
        for right in [Right::Read, Right::Write, Right::Admin] {
            for cf in crate::storage::FAMILIES {
                for key in keys {
                    let in_app = cf == "default" && key.starts_with(b"app/");
                    let in_hex = key.starts_with(b"\x00\xff");
                    let expected = match (caller, right) {
                        (0 | 1, Right::Read) => in_app || in_hex,
                        (0 | 1, Right::Write) => in_app,
                        (1, Right::Admin) | (2, Right::Read | Right::Write) => true,
                        _ => false,
                    };
                    let got = match right {
                        Right::Admin => who.may_administrate(),
                        _ => who.may(right, cf, key),
                    };
                    assert_eq!(got, expected, "{} {right} {cf} {key:?}", who.name());
                    cells += 1;
                }
            }
        }
    }
    assert_eq!(cells, 5 * 3 * 3 * 8);
    let everything: Vec<bool> = callers.iter().map(|who| who.may_everything()).collect();
    assert_eq!(everything, [false, false, true, false, false]);
}

#[test]
fn a_scan_ends_where_the_widest_grant_does() {
    let app = by_token("token-a").unwrap();
    let end = |cf, start: &[u8]| app.scan_end(cf, start);
    assert_eq!(end("default", b"app/a"), Some(Some(b"app0".to_vec())));
    assert_eq!(end("lock", b"\x00\xff\x07"), Some(Some(vec![1])));
    assert_eq!(end("write", b"app/a"), None);
    assert_eq!(end("default", b""), None);
    assert_eq!(end("default", b"app"), None);
    let alice = by_certificate(&["alice"], false).unwrap();
    assert_eq!(alice.scan_end("default", b""), Some(None));
    assert_eq!(behind(&[255, 255]), None);
    assert_eq!(behind(&[7, 255]), Some(vec![8]));
    assert_eq!(behind(&[]), None);
}

#[test]
fn whoever_is_not_known_is_refused_and_a_wrong_token_is_not_made_good_by_a_certificate() {
    for (header, code) in [
        ("Bearer token-c", "UNKNOWN_TOKEN"),
        ("Bearer ", "UNKNOWN_TOKEN"),
        ("token-a", "UNKNOWN_TOKEN"),
        ("Basic token-a", "UNKNOWN_TOKEN"),
    ] {
        let alice = Identity {
            names: vec!["alice".to_owned()],
            is_peer: false,
        };
        let table = auth(parse(&text()).unwrap());
        let status = table
            .who(Some(header.as_bytes()), Some(&alice))
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{header}");
        assert!(status.message().starts_with(code), "{status}");
        assert!(!status.message().contains("token-"), "{status}");
    }
    let long = format!("token-a{}", " ".repeat(MAX_TOKEN_LEN));
    assert!(by_token(&long).is_err());
    assert!(by_certificate(&["mallory"], false).is_err());
    assert!(by_certificate(&[], false).is_err());
    assert!(by_certificate(&["mallory"], true).unwrap().is_peer());
}

#[test]
fn a_file_that_says_something_else_is_refused_by_name() {
    let role = "[[role]]\nname = \"r\"\ngrants = ";
    let hash = "a".repeat(64);
    for (text, words) in [
        ("role = 1".to_owned(), "sequence"),
        ("[[roles]]".to_owned(), "unknown field `roles`"),
        (
            format!("{role}[{{ can = [\"fly\"] }}]"),
            "unknown variant `fly`",
        ),
        (
            format!("{role}[{{ can = [] }}]"),
            "role \"r\": a grant says",
        ),
        (
            format!("{role}[{{ can = [\"read\"], cf = \"x\" }}]"),
            "\"x\"",
        ),
        (
            format!("{role}[{{ can = [\"admin\"], prefix = \"x\" }}]"),
            "a right on the whole server",
        ),
        (
            format!("{role}[{{ can = [\"read\"], prefix-hex = \"0\" }}]"),
            "is not hex",
        ),
        (
            format!("{role}[{{ can = [\"read\"], prefix-hex = \"00\", prefix = \"0\" }}]"),
            "exclude each other",
        ),
        (
            format!("[[token]]\nname = \"t\"\nsha256 = \"{hash}\"\nroles = [\"x\"]"),
            "there is no role \"x\"",
        ),
        (
            "[[token]]\nname = \"t\"\nsha256 = \"12\"\nroles = []".to_owned(),
            "64 hex digits",
        ),
        (
            format!("[[token]]\nname = \"t\"\nsha256 = \"{hash}\"\nroles = []\n").repeat(2),
            "same hash",
        ),
        ("\n\n[[token".to_owned(), "line 3"),
    ] {
        let refusal = parse(&text).unwrap_err();
        assert!(refusal.contains(words), "{text:?} gave {refusal:?}");
        assert!(!refusal.contains('\n'), "{refusal:?}");
    }
}

#[test]
fn a_file_that_changes_is_taken_and_a_bad_one_leaves_the_rights_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rights.toml");
    fs::write(&file, text()).unwrap();
    let auth = Auth::load(&file).unwrap();
    let known = || auth.who(Some(b"Bearer token-a"), None).is_ok();
    assert!(known());
    assert_eq!(auth.look(), Ok(None));

    fs::write(&file, "[[role]]\nname = 7\n").unwrap();
    let why = auth.look().unwrap_err();
    assert!(
        why.contains("stay as they were") && why.contains("rights.toml"),
        "{why}"
    );
    assert!(known());
    fs::write(&file, "").unwrap();
    assert_eq!(auth.look(), Ok(Some("rights")));
    assert!(!known(), "an empty file denies everybody");
    fs::remove_file(&file).unwrap();
    assert!(auth.look().is_err());
    assert_eq!(auth.look(), Ok(None), "a missing file is told of once");
    assert!(auth.reload().is_err());
    assert!(!known());
    fs::write(&file, text()).unwrap();
    assert_eq!(auth.look(), Ok(Some("rights")));
    assert!(known());
}

#[test]
fn every_code_has_its_page() {
    let page = include_str!("../../../docs/operations/errors.md");
    let sources = [
        include_str!("../auth.rs"),
        include_str!("../service/gate.rs"),
    ];
    let mut codes = std::collections::BTreeSet::new();
    for source in sources {
        for text in source.split('"').skip(1).step_by(2) {
            let word = text.split(':').next().unwrap_or_default();
            let is_code = word.contains('_') && text.contains(": ");
            if is_code
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            {
                codes.insert(word);
            }
        }
    }
    assert_eq!(codes.len(), 5, "{codes:?}");
    for code in codes {
        assert!(page.contains(&format!("\n## {code}\n")), "{code}");
    }
}
