//! The page of `trainer report` in a browser: it opens without a server, shows its charts and images, logs no
//! error, fits a phone, and follows the dark mode of the reader.
//!
//! Needs Chromium (`MRM_CHROMIUM`, or on the path). Without one the test prints that it is skipped, or fails with
//! `MRM_REQUIRE_BROWSER=1`. `MRM_SCREENSHOTS` names a folder for screenshots.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use helpers::{args, folder, ok, text};
use serde_json::Value;
use training::{dataset, pretraining};

/// Runs at the end of the page, and reports to the frame around it.
const PROBE: &str = r#"<script>addEventListener("load", () => {
  const seen = node => { const box = node.getBoundingClientRect(); return box.width > 50 && box.height > 50; };
  const wide = [...document.querySelectorAll("main *")]
    .filter(node => !node.closest(".scroll, svg") && node.getBoundingClientRect().right > innerWidth + 1);
  parent.postMessage(JSON.stringify({
    charts: [...document.querySelectorAll("figure svg")].filter(seen).length,
    images: [...document.querySelectorAll("figure img")].filter(image => seen(image) && image.naturalWidth > 100).length,
    tables: document.querySelectorAll("table").length,
    overflow: document.documentElement.scrollWidth - innerWidth,
    wide: wide.map(node => node.tagName),
    width: innerWidth,
    ground: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    axis: getComputedStyle(document.querySelector("figure svg text")).fill,
  }), "*");
});</script></body>"#;

/// A frame of this width, since windows have a minimum width.
fn framed(page: &Path, width: u32) -> String {
    format!(
        r#"<body style="margin: 0"><iframe src="file://{}" width="{width}" height="2400" style="border: 0"></iframe>
        <script>addEventListener("message", event => document.documentElement.dataset.probe = event.data);</script></body>"#,
        page.display()
    )
}

fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("MRM_CHROMIUM").map(PathBuf::from);
    let on_path = || {
        let folders = std::env::var_os("PATH")?;
        let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
        let mut places = std::env::split_paths(&folders).flat_map(|folder| names.map(|name| folder.join(name)));
        places.find(|place| place.is_file())
    };
    let found = named.or_else(on_path);
    if found.is_none() {
        assert!(std::env::var("MRM_REQUIRE_BROWSER").as_deref() != Ok("1"), "Chromium is not installed");
        eprintln!("skipped: no Chromium on this machine (MRM_CHROMIUM names one)");
    }
    found
}

/// Opens a page with this width, light or dark, and returns the report of the probe.
fn open(browser: &Path, page: &Path, width: u32, dark: bool) -> Value {
    let profile = folder();
    let frame = page.with_extension("frame.html");
    fs::write(&frame, framed(page, width)).expect("written");
    let run = |more: &[&str]| {
        let output = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--enable-logging=stderr", "--hide-scrollbars", "--virtual-time-budget=5000"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={},2400", width.max(500)))
            .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
            .args(more)
            .arg(format!("file://{}", frame.display()))
            .output()
            .expect("Chromium starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        output
    };
    if let Some(folder) = std::env::var_os("MRM_SCREENSHOTS").map(PathBuf::from) {
        let stem = page.file_stem().expect("a name").to_string_lossy();
        let name = format!("{stem}-{width}-{}.png", if dark { "dark" } else { "light" });
        run(&[&format!("--screenshot={}", folder.join(name).display())]);
    }
    let output = run(&["--dump-dom"]);
    let complaints = text(&output.stderr);
    let complaints: Vec<&str> = complaints.lines().filter(|line| line.contains(":CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    let page = text(&output.stdout);
    let (_, rest) = page.split_once("data-probe=\"").expect("the probe ran");
    let (found, _) = rest.split_once('"').expect("an attribute");
    serde_json::from_str(&found.replace("&quot;", "\"")).expect("JSON")
}

/// Lightness of a color `rgb(r, g, b)`, 0 to 255.
fn lightness(color: &Value) -> f64 {
    let color = color.as_str().expect("a color");
    let numbers: Vec<f64> =
        color.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|number| number.parse().ok()).collect();
    numbers[..3].iter().sum::<f64>() / 3.0
}

/// Without a defined test score there is no chart, and the page says so; an evaluation on another dataset is separate.
#[test]
fn evaluations_without_plots_make_a_page() {
    let temporary = folder();
    let run = temporary.path().join("lonely");
    fs::create_dir(&run).expect("a folder");
    let evaluation = |value: Value| {
        let scores = serde_json::json!({ "auroc": value, "average_precision": null, "sensitivity": null, "brier": null,
            "calibration_error": null });
        let mut finding = scores.clone();
        for (key, value) in [("finding", "Edema".into()), ("positives", 0.into()), ("negatives", Value::from(5))] {
            finding[key] = value;
        }
        serde_json::json!({ "task": "labels:Edema", "split": "main", "subset": "test", "ratio": 12.5, "seed": 0,
            "init": "random", "start": "random start", "records": 5, "patients": 5, "specificity": 0.9, "draws": 10,
            "weights": "best.safetensors", "findings": [finding], "mean": scores })
    };
    let write = |name: &str, value| fs::write(run.join(name), evaluation(value).to_string()).expect("written");
    write("evaluation-test.json", Value::Null);
    write("evaluation-test-on-nih.json", serde_json::json!({ "value": 0.75, "low": 0.5, "high": 0.875, "draws": 10 }));
    let interval = serde_json::json!({ "value": 0.75, "low": 0.5, "high": 0.875, "draws": 8 });
    let mut thin = evaluation(interval);
    thin["findings"][0]["auroc_delong"] = serde_json::json!({ "standard_error": 0.1, "low": 0.554, "high": 0.946 });
    fs::write(run.join("evaluation-test-on-thin.json"), thin.to_string()).expect("written");
    let page = temporary.path().join("report.html");
    // A run of the same name is shown with the folder above it.
    let other = temporary.path().join("other/lonely");
    fs::create_dir_all(&other).expect("a folder");
    fs::copy(run.join("evaluation-test.json"), other.join("evaluation-test.json")).expect("a copy");
    ok("trainer", args!["report", &run, &other, "--out", &page]);
    let html = fs::read_to_string(&page).expect("a page");
    assert!(html.contains("<h2>other/lonely on test</h2>"), "{html}");
    assert!(!html.contains("<svg") && html.contains("<th>12.5%</th>") && html.contains("<td>undefined</td>"), "{html}");
    assert!(html.contains("lonely on test-on-nih") && html.contains("0.750 <small>0.500–0.875</small>"), "{html}");
    // 8 of 10 draws are marked and explained, where they are shown; so is DeLong's interval.
    let section = |stem: &str| {
        let heading = format!(" on {stem}</h2>");
        html.split("<section>").find(|section| section.contains(&heading)).expect("a section")
    };
    let (thin, nih) = (section("test-on-thin"), section("test-on-nih"));
    for words in [
        "<small>0.500–0.875</small>*</td><td>0.554–0.946</td>",
        "<th>95% (DeLong)</th>",
        "* defined in fewer than nine",
    ] {
        assert!(thin.contains(words) && !nih.contains(words), "{words}: {html}");
    }
}

/// The files of a run that the page reads: a configuration, a log and an evaluation.
fn made_run(folder: &Path, number: usize) -> PathBuf {
    let run = folder.join(format!("run-{number:02}"));
    fs::create_dir(&run).expect("a folder");
    let config = format!(
        "preset = \"mrm-vit-tiny\"\ntask = \"labels:Edema\"\nfindings = [\"Edema\"]\nratio = 1.0\ninit = \"random\"\n\
         [optimizer]\nrate = 0.00{}\nsteps = 40\nbatch_size = 8\n[run]\nseed = {}\n",
        number + 1,
        100 + number
    );
    fs::write(run.join("config.toml"), config).expect("written");
    let line = |step: usize| {
        let loss = 1.0 / (step + number + 1) as f64 + number as f64 / 20.0;
        serde_json::json!({ "step": step, "loss": loss, "lr": 1e-3 * (41 - step) as f64 / 41.0 }).to_string() + "\n"
    };
    fs::write(run.join("metrics.jsonl"), (1..=40).map(line).collect::<String>()).expect("written");
    for ratio in [1.0, 10.0, 100.0] {
        let value = 0.6 + f64::log10(ratio) / 10.0 + number as f64 / 60.0;
        let auroc = serde_json::json!({ "value": value, "low": value - 0.02, "high": value + 0.02, "draws": 10 });
        let scores = serde_json::json!({ "auroc": auroc, "average_precision": null, "sensitivity": null, "brier": null,
            "calibration_error": null });
        let mut finding = scores.clone();
        for (key, value) in [("finding", "Edema".into()), ("positives", 5.into()), ("negatives", Value::from(5))] {
            finding[key] = value;
        }
        let evaluation = serde_json::json!({ "task": "labels:Edema", "split": "main", "subset": "test", "ratio": ratio,
            "seed": 100 + number, "init": "random", "start": format!("start {number:02}"), "records": 1, "patients": 1,
            "specificity": 0.9, "draws": 10, "weights": "best.safetensors", "findings": [finding], "mean": scores });
        let name = if ratio == 1.0 { run.clone() } else { folder.join(format!("run-{number:02}-{ratio}")) };
        fs::create_dir_all(&name).expect("a folder");
        fs::write(name.join("evaluation-test.json"), evaluation.to_string()).expect("written");
    }
    run
}

/// Nine runs with nine initializations: each has a distinct line, with and without color, and its settings.
#[test]
fn many_runs_are_distinguished() {
    let temporary = folder();
    let runs: Vec<PathBuf> = (0..9).map(|number| made_run(temporary.path(), number)).collect();
    let more = fs::read_dir(temporary.path()).expect("a folder").flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> = more.collect();
    all.sort();
    let page = temporary.path().join("report.html");
    let arguments = args!["report", "--out", &page].into_iter().chain(all.iter().map(Into::into));
    ok("trainer", arguments);
    let html = fs::read_to_string(&page).expect("a page");
    let value = |entry: &str, name: &str| {
        let rest = entry.split(&format!(" {name}=\"")).nth(1);
        rest.and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
    };
    // Legends of label efficiency, loss and learning rate.
    let legends: Vec<&str> = html.split("<div class=\"legend\">").skip(1).collect();
    assert_eq!(legends.len(), 3);
    for legend in legends {
        let entries = legend.split("</div>").next().expect("an end").split("<span>").skip(1);
        let distinct = |names: &[&str]| -> usize {
            let look = |entry: &str| names.iter().map(|name| value(entry, name)).collect::<Vec<_>>();
            entries.clone().map(look).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(entries.clone().count(), 9);
        assert_eq!([distinct(&["class", "stroke-dasharray", "d"]), distinct(&["stroke-dasharray", "d"])], [9, 9]);
    }
    for (number, run) in runs.iter().enumerate() {
        let name = run.file_name().expect("a name").to_string_lossy();
        assert!(html.contains(&format!("<summary>all settings of {name}</summary>")), "{name}");
        let row = format!("<td>10{number}</td><td>40</td><td>8</td><td>0.00{}</td>", number + 1);
        assert!(html.contains(&row), "{html}");
        assert!(
            html.contains(&format!(
                "1 record of 1 patient; 1% of the training labels; start 0{number}; seed 10{number}."
            ))
        );
    }
    let Some(browser) = chromium() else { return };
    let probed = temporary.path().join("many.html");
    fs::write(&probed, html.replace("</body>", PROBE)).expect("written");
    for (width, dark) in [(1200, false), (1200, true), (390, false)] {
        let found = open(&browser, &probed, width, dark);
        assert!(found["charts"] == 3 && found["overflow"].as_i64() <= Some(0), "{found}");
        assert!(found["wide"].as_array().is_some_and(Vec::is_empty), "{found}");
    }
}

#[test]
fn the_report_opens_in_a_browser() {
    let Some(browser) = chromium() else { return };
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let run = |name: &str| temporary.path().join("runs").join(name);
    ok("trainer", pretraining(&data, &run("mrm"), 12, &[]));
    let rows = args!["--rows", "3", "--split", "main"];
    let reconstruct = args!["reconstruct", "--data", &data, "--weights", run("mrm")];
    ok("trainer", reconstruct.into_iter().chain(rows));
    for (name, ratio, more) in [
        ("mrm-50", "50", args!["--init", run("mrm")]),
        ("mrm-100", "100", args!["--init", run("mrm")]),
        ("random-100", "100", args!["--preset", "mrm-vit-tiny"]),
    ] {
        let mut all =
            args!["finetune", "--data", &data, "--run", run(name), "--split", "main", "--ratio", ratio].to_vec();
        all.extend(args!["--task", "chexpert5", "--device", "cpu", "--steps", "20", "--batch-size", "8"]);
        all.extend(args!["--set", "run.log_every=2"].into_iter().chain(more));
        ok("trainer", all);
        let evaluate = args!["evaluate", "--data", &data, "--run", run(name), "--split", "main", "--draws", "50"];
        ok("trainer", evaluate.into_iter().chain(args!["--subgroups", "sex,view"]));
    }
    let page = temporary.path().join("report.html");
    ok("trainer", args!["report", run("mrm"), run("mrm-50"), run("mrm-100"), run("random-100"), "--out", &page]);
    let html = fs::read_to_string(&page).expect("a page");
    let without_namespaces = html.replace("http://www.w3.org", "");
    assert!(!without_namespaces.contains("http://") && !html.contains("https://"), "self-contained");
    // The probe is added to a copy, since the page has no script.
    assert!(!html.contains("<script"));
    let probed = temporary.path().join("probed.html");
    fs::write(&probed, html.replace("</body>", PROBE)).expect("written");

    for (width, dark) in [(1200, false), (390, false), (390, true)] {
        let found = open(&browser, &probed, width, dark);
        assert_eq!(found["width"], width, "{found}");
        assert!(found["charts"].as_u64() >= Some(6) && found["images"] == 1, "{found}");
        assert!(found["tables"].as_u64() >= Some(4), "{found}");
        assert!(
            found["overflow"].as_i64() <= Some(0) && found["wide"].as_array().is_some_and(Vec::is_empty),
            "{found}"
        );
        let (ground, ink, axis) = (lightness(&found["ground"]), lightness(&found["ink"]), lightness(&found["axis"]));
        assert!(
            if dark {
                ground < 60.0 && ink > 180.0 && axis > 180.0
            } else {
                ground > 200.0 && ink < 80.0 && axis < 80.0
            },
            "{found}"
        );
    }

    // Decisions, curves and subgroups are folded.
    for words in ["decisions at a threshold chosen", "ROC, precision-recall and reliability curves", "subgroups by sex"]
    {
        assert!(html.contains(&format!("<details><summary>{words}")), "{words}");
    }
    let opened = temporary.path().join("opened.html");
    fs::write(&opened, html.replace("<details>", "<details open>").replace("</body>", PROBE)).expect("written");
    for (width, dark) in [(1200, true), (390, false)] {
        let found = open(&browser, &opened, width, dark);
        assert!(found["charts"].as_u64() >= Some(6 + 3 * 3), "{found}");
        assert!(
            found["overflow"].as_i64() <= Some(0) && found["wide"].as_array().is_some_and(Vec::is_empty),
            "{found}"
        );
    }
}
