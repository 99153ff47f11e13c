//! The web page in a real browser, against three real stores: what it shows is what the stores say, and follows them; it
//! can be used without a mouse, on a phone, in the dark.
//!
//! Without Chromium these tests are skipped, and say so; with `BASALT_BROWSER_TEST=required` they fail then.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::Value;

use crate::{
    devtools::{self, Browser},
    processes::{Cluster, Process, basalt, done, eventually},
};

/// What a store answers to a program.
fn asked(addr: &str, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(addr).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

/// Goes to a part of the page, once something of it is shown.
#[track_caller]
fn go(browser: &mut Browser, part: &str) {
    browser.eval(&format!("location.hash = '{part}'"));
    let is_there = format!(
        "current === '{part}' && !$('content').textContent.startsWith('Loading') && $('title').textContent === views['{part}'].title"
    );
    browser.until(part, &is_there);
}

const PARTS: [&str; 9] = [
    "overview", "stores", "engine", "rates", "slow", "keys", "log", "config", "profile",
];

/// The cells of the rows of a table.
const ROWS: &str = "((at) => [...document.querySelectorAll(`${at} tbody tr`)].map((row) => [...row.children].map((cell) => cell.textContent)))";

/// Text whose contrast is below 4.5 to 1 (3 to 1 where it is large), with its colours.
const FAINT: &str = r"(() => {
  const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((one) => one / 255).map((one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const at = node.parentElement;
    if (!node.data.trim() || !at.checkVisibility() || at.closest('.quiet, .skip')) continue;
    const style = getComputedStyle(at);
    const ink = at instanceof SVGElement ? parse(style.fill) : parse(style.color);
    const [a, b] = [light(ink), light(behind(at))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const isLarge = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 600);
    if (ratio < (isLarge ? 3 : 4.5)) faint.push(`${node.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return faint;
})()";

/// What a screen reader would miss.
const NAMELESS: &str = r"(() => {
  const seen = (list) => [...document.querySelectorAll(list)].filter((node) => node.checkVisibility());
  const wrong = [];
  for (const node of seen('input, select')) if (!node.labels.length) wrong.push(`no label: ${node.id}`);
  for (const node of seen('button, a')) if (!node.textContent.trim()) wrong.push(`no name: ${node.outerHTML}`);
  for (const node of seen('svg[role=img]')) if (!node.getAttribute('aria-label') && !node.querySelector('title')) wrong.push('a picture without words');
  for (const node of seen('table')) if (!node.caption || !node.querySelector('th[scope=col]') || (node.tBodies[0].rows.length && !node.querySelector('th[scope=row]'))) wrong.push('a table without heads');
  if (seen('h1').length !== 1) wrong.push(`${seen('h1').length} headings of the first level`);
  for (const tag of ['header', 'nav', 'main', 'footer']) if (seen(tag).length !== 1) wrong.push(`not one ${tag}`);
  if (seen('nav a[aria-current=page]').length !== 1) wrong.push('the place in the navigation is not told');
  if (!document.documentElement.lang) wrong.push('no language');
  const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
  if (new Set(ids).size !== ids.length) wrong.push('an id twice');
  return wrong;
})()";

fn fill(cluster: &Cluster) {
    let all = cluster.all();
    for number in 0..30 {
        done(&[
            "put",
            &format!("city/{number:02}"),
            "a value",
            "--addr",
            &all,
        ]);
    }
    done(&[
        "put",
        "<img src=x onerror=alert(1)>",
        "<b>bold</b>",
        "--addr",
        &all,
    ]);
    for id in 1..=3 {
        done(&["flush", "--addr", cluster.addr(id)]);
    }
    done(&["put", "in/memory", "v", "--addr", &all]);
}

/// A family of an engine, as `/status` has it: its tables by level.
fn levels(status: &Value) -> Vec<(u64, u64)> {
    let families = status["engine"]["kv"]["column_families"]
        .as_array()
        .unwrap();
    let family = families
        .iter()
        .find(|one| one["name"] == "default")
        .unwrap();
    let levels = family["levels"].as_array().unwrap().iter();
    levels
        .map(|one| {
            (
                one["level"].as_u64().unwrap(),
                one["table_count"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn the_page_shows_what_the_stores_say_and_follows_them() {
    let Some(program) = devtools::find() else {
        return;
    };
    let mut cluster = Cluster::start();
    fill(&cluster);
    let host = cluster.status_addr(1).to_owned();
    let mut browser = Browser::start(&program);
    browser.size(1200, 900);
    browser.dark(false);
    browser.open(&format!("http://{host}/"));
    browser.until(
        "it serves",
        "document.querySelector('#state')?.textContent.includes('Serving')",
    );
    let who = browser.eval("$('who').textContent");
    assert!(
        who.as_str()
            .unwrap()
            .starts_with("store 1 of cluster basalt"),
        "{who}"
    );
    browser.until(
        "health in words",
        "$('content').textContent.includes('3 of 3 stores are alive and 2 are enough')",
    );
    browser.until(
        "a chart",
        "document.querySelector('svg.chart polyline')?.points.length > 1",
    );
    browser.picture("overview");

    // Stores and regions: each row is what that store says itself.
    let leader = cluster.leader();
    for id in 1..=3 {
        cluster.catches_up(id);
    }
    go(&mut browser, "stores");
    browser.until(
        "the leader",
        &format!("$('content').textContent.includes('led by store {leader}')"),
    );
    for id in 1..=3 {
        let row =
            format!("{ROWS}('section[data-key=region-1]').find((row) => row[0] === 'Store {id}')");
        eventually("the row of a store is what it says", || {
            let status = asked(cluster.status_addr(id), "/status")?;
            let region = &status["regions"][0];
            let shown = browser.eval(&row);
            let applied = shown[3].as_str()?.replace(',', "");
            let is_same = shown[1] == region["role"]
                && shown[2] == "yes"
                && applied == region["applied"].to_string();
            is_same.then_some(())
        });
    }
    let lag = browser.eval(&format!(
        "{ROWS}('section[data-key=region-1]').map((row) => row[4])"
    ));
    assert_eq!(
        lag,
        serde_json::json!(["0 entries", "0 entries", "0 entries"])
    );
    browser.picture("stores");

    // The levels of a family.
    go(&mut browser, "engine");
    let shown = browser.eval(&format!(
        "{ROWS}('section[data-key=cf-kv-default]').map((row) => row.slice(0, 2))"
    ));
    let status = asked(&host, "/status").unwrap();
    let expected: Vec<_> = levels(&status)
        .iter()
        .map(|(level, tables)| vec![format!("L{level}"), tables.to_string()])
        .collect();
    assert_eq!(shown, serde_json::json!(expected));
    let boxes = browser
        .eval("document.querySelectorAll('section[data-key=cf-kv-default] .lsm .table').length");
    let tables: u64 = levels(&status).iter().map(|(_, tables)| tables).sum();
    assert!(
        tables > 0 && boxes == tables,
        "{boxes} boxes for {tables} tables"
    );
    browser.picture("engine");

    // Keys, of which one looks like markup.
    go(&mut browser, "keys");
    let keys = browser.eval(&format!("{ROWS}('#content').map((row) => row.slice(0, 2))"));
    assert_eq!(
        keys[0],
        serde_json::json!(["<img src=x onerror=alert(1)>", "11"])
    );
    assert_eq!(keys.as_array().unwrap().len(), 32);
    assert_eq!(
        browser.eval("$('content').querySelectorAll('img, b').length"),
        0
    );
    done(&[
        "config",
        "set",
        "status-browse=values",
        "--addr",
        cluster.addr(1),
    ]);
    browser.eval("$('find-prefix').value = 'city/\\\\x30'; $('find').requestSubmit()");
    browser.until(
        "values of keys with a prefix",
        &format!("{ROWS}('#content').length === 10 && {ROWS}('#content')[0][2] === 'a value'"),
    );
    browser.picture("keys");
    done(&[
        "config",
        "set",
        "status-browse=off",
        "--addr",
        cluster.addr(1),
    ]);
    browser.eval("$('find').requestSubmit()");
    browser.until(
        "it is off",
        "$('content').textContent.includes('key browser is off')",
    );

    // Where settings come from.
    go(&mut browser, "config");
    let browse = browser.eval(&format!(
        "{ROWS}('#content').find((row) => row[0] === 'status-browse').slice(1, 4)"
    ));
    assert_eq!(browse, serde_json::json!(["off", "online", "online"]));
    let path = browser.eval(&format!(
        "{ROWS}('#content').find((row) => row[0] === 'path').slice(1, 3)"
    ));
    assert_eq!(
        path,
        serde_json::json!([cluster.dir(1).to_str().unwrap(), "flag"])
    );

    // Leadership moves, and the page follows without being touched.
    go(&mut browser, "stores");
    let next = leader % 3 + 1;
    done(&[
        "transfer-leader",
        &next.to_string(),
        "--addr",
        cluster.addr(leader),
    ]);
    browser.until(
        "the new leader",
        &format!("$('content').textContent.includes('led by store {next}')"),
    );
    let badge = browser.eval(&format!("{ROWS}('section[data-key=region-1]').filter((row) => row[1] === 'leader').map((row) => row[0])"));
    assert_eq!(badge, serde_json::json!([format!("Store {next}")]));

    // A store dies. This one tells what that means.
    let lost = if next == 1 { 2 } else { next };
    cluster.kill(lost);
    cluster.leader();
    browser.until("no answer of the dead one", &format!("{ROWS}('#content').some((row) => row[0] === 'Store {lost}' && row[1].includes('No answer'))"));
    go(&mut browser, "overview");
    browser.until("what the next loss means", &format!("$('content').textContent.includes('2 of 3 stores are alive (store {lost} is out) and 2 are needed')"));
    browser.picture("one-store-lost");
    assert_eq!(browser.complaints(&host), Vec::<String>::new());
}

#[test]
fn the_page_is_usable_on_a_phone_in_the_dark_and_without_a_mouse() {
    let Some(program) = devtools::find() else {
        return;
    };
    let mut demo = Process::spawn(&["demo"]);
    let mut host = String::new();
    loop {
        let line = demo.line();
        assert!(!line.is_empty(), "the demo did not start");
        if let Some((_, rest)) = line.split_once("web page http://") {
            host = rest.trim_end().trim_end_matches('/').to_owned();
        }
        if line.starts_with("Ctrl-C") {
            break;
        }
    }
    assert_ne!(host, "", "the demo says where its page is");
    let mut browser = Browser::start(&program);
    browser.open(&format!("http://{host}/"));
    browser.until(
        "it serves",
        "document.querySelector('#state')?.textContent.includes('Serving')",
    );
    let mut grounds = Vec::new();
    for (is_dark, width) in [(false, 1200), (true, 1200), (false, 360), (true, 360)] {
        browser.size(width, 800);
        browser.dark(is_dark);
        for part in PARTS {
            go(&mut browser, part);
            let place = format!("{part}, dark: {is_dark}, {width} px");
            let wide = browser.eval(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth",
            );
            assert_eq!(wide, 0, "{place}: it scrolls sideways");
            assert_eq!(browser.eval(FAINT), serde_json::json!([]), "{place}");
            assert_eq!(browser.eval(NAMELESS), serde_json::json!([]), "{place}");
            if is_dark && width == 1200 && part == "engine" {
                browser.picture("engine-dark");
            }
            if width == 360 && part == "overview" {
                browser.picture(if is_dark { "phone-dark" } else { "phone" });
            }
            if !is_dark && width == 1200 && ["rates", "config"].contains(&part) {
                browser.picture(part);
            }
        }
        grounds.push(browser.eval("getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(grounds[0], grounds[1], "dark is dark");

    // By keyboard alone: the first stop skips the navigation, the next ones are its links.
    browser.size(1200, 800);
    browser.open(&format!("http://{host}/#overview"));
    browser.until(
        "it serves",
        "document.querySelector('#state')?.textContent.includes('Serving')",
    );
    let focus = "document.activeElement.textContent + (document.activeElement.matches(':focus-visible') ? ' *' : '')";
    browser.press("Tab", 9);
    assert_eq!(browser.eval(focus), "Skip to content *");
    browser.press("Tab", 9);
    assert_eq!(browser.eval(focus), "Overview *");
    browser.press("Tab", 9);
    browser.press("Enter", 13);
    browser.until(
        "the stores",
        "$('title').textContent === 'Stores and regions' && document.activeElement === $('title')",
    );
    // What is polled anew keeps the focus.
    go(&mut browser, "engine");
    browser.eval("document.querySelector('#content summary').focus()");
    browser.press("Enter", 13);
    browser.until("details", "document.querySelector('#content details').open");
    let seen = browser.eval("$('fresh').textContent");
    browser.until(
        "it is polled",
        &format!("$('fresh').textContent !== {seen}"),
    );
    assert_eq!(
        browser.eval(
            "document.activeElement.nodeName + document.querySelector('#content details').open"
        ),
        "SUMMARYtrue"
    );

    // A profile is taken and drawn.
    go(&mut browser, "profile");
    browser.eval("$('take-seconds').value = 1; $('take').requestSubmit()");
    browser.until(
        "a flame graph",
        "document.querySelector('#drawn svg title')?.textContent.startsWith('CPU profile')",
    );
    assert_eq!(browser.complaints(&host), Vec::<String>::new());
    demo.signal("TERM");
    assert_eq!(demo.wait().0, Some(0));
}

#[test]
fn where_there_are_rights_the_page_asks_for_a_token() {
    let Some(program) = devtools::find() else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let made = basalt(&["token", "one", "--roles", "reader"])
        .output()
        .unwrap();
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let entry = String::from_utf8(made.stderr).unwrap();
    let rights = root.path().join("rights.toml");
    let text = format!(
        "[[role]]\nname = \"reader\"\ngrants = [{{ can = [\"read\"], cf = \"default\", prefix = \"app/\" }}]\n\
         {entry}"
    );
    std::fs::write(&rights, text).unwrap();
    let dir = root.path().join("data");
    let free = "127.0.0.1:0";
    let mut server = Process::spawn(&[
        "server",
        "--path",
        dir.to_str().unwrap(),
        "--addr",
        free,
        "--status-addr",
        free,
        "--auth-file",
        rights.to_str().unwrap(),
    ]);
    let line = server.line();
    let host = line.split_once("http://").unwrap().1;
    let host = host.split(['/', ')']).next().unwrap().to_owned();
    let mut browser = Browser::start(&program);
    browser.open(&format!("http://{host}/"));
    browser.until("the form", "!$('token').hidden && $('view').hidden");
    let enter =
        |token: &str| format!("$('token-text').value = '{token}'; $('token').requestSubmit()");
    browser.eval(&enter("wrong"));
    browser.until(
        "it is refused",
        "$('trouble').textContent.includes('UNKNOWN_TOKEN')",
    );
    browser.eval(&enter(&token));
    browser.until(
        "the page",
        "$('token').hidden && document.querySelector('#state').textContent.includes('Serving')",
    );
    go(&mut browser, "log");
    browser.until(
        "the log is not for it",
        "$('content').textContent.includes('no admin right')",
    );
    go(&mut browser, "keys");
    browser.until(
        "nor all keys",
        "$('content').textContent.includes('no read right')",
    );
    browser.eval("$('find-prefix').value = 'app/'; $('find').requestSubmit()");
    browser.until(
        "those it may read",
        "$('content').textContent.includes('No keys here')",
    );
    assert_eq!(browser.complaints(&host), Vec::<String>::new());
    server.signal("TERM");
    assert_eq!(server.wait().0, Some(0));
}
