//! The proof that the prober sees: every flaw of `fixtures/plugins/flaws.yaml` is switched on in a
//! running lab, and must be found under its rule; every sound variant must have no finding.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use lockproof::{
    config::{load, plan::Plan},
    gate::{
        diagnose::Scene,
        examine::{self, Examiner},
    },
};
use lockproof_deploy::{
    deployment::{Deployment, ready::Readiness},
    engine::{Engine, Run, exec::Command},
    install,
    lab::Kit,
    layout, mint,
};
use lockproof_model::{
    event::Event,
    finding::{Finding, Severity},
    verdict::Verdict,
};
use lockproof_probe::{
    client::Client,
    keys::{self, Keys},
    look::Reference,
    message::URL,
    surface::routes::Route,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Table {
    flaws: Vec<Flaw>,
    sound: Vec<Variant>,
}

#[derive(Deserialize)]
struct Flaw {
    name: String,
    rule: String,
    #[serde(default)]
    also: Vec<String>,
    verdict: Verdict,
    when: String,
    #[serde(default)]
    needs: Option<String>,
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    shows: Option<String>,
}

#[derive(Deserialize)]
struct Variant {
    name: String,
}

impl Flaw {
    /// Whether it can be switched on in a running container, and shows without an event.
    fn shows_at_runtime(&self) -> bool {
        self.when == "runtime" && self.needs.is_none() && !matches!(self.shows.as_deref(), Some("event" | "shut"))
    }

    /// Whether looking for it leaves the server otherwise than it was.
    fn leaves_traces(&self) -> bool {
        self.shows.as_deref() == Some("worn") || self.rule == "lock/claimable"
    }
}

fn table() -> Result<Table> {
    let text = include_str!("../fixtures/plugins/flaws.yaml");
    Ok(serde_yaml::from_str(text)?)
}

/// A lab with the login plugin, whose switches can be turned.
struct Bench {
    deployment: Deployment,
    layout: layout::Layout,
    installed: install::Installed,
    client: Client,
    keys: Keys,
}

impl Bench {
    async fn up(engine: &Engine, run: &Run, key: &str) -> Result<Self> {
        let kit = Kit::prepare(engine, run).await?;
        let text = format!(
            "subjects: [{{ name: mutants, image: lockproof/comfyui-lab, stop_timeout: 0s, \
             env: {{ LAB_LOGIN_BCRYPT_ROUNDS: 4 }} }}]\n\
             scheme: {{ install: {{ from: {}, wheels: {} }} }}",
            kit.plugin().display(),
            kit.wheels().display()
        );
        let plan = Plan::new(&load::parse(&text, "mutants")?, std::path::Path::new("/"))?;
        let deployment = Deployment::bring_up(engine, run, key, &plan.subjects[0]).await?;
        let client = ready(&deployment).await?;
        let layout = layout::detect(&deployment, &client).await?;
        let installed = install::install(&deployment, &layout).await?;
        deployment.restart().await?;
        let client = ready(&deployment).await?;
        let keys = mint::mint(&deployment, &client, &layout, &installed).await?;
        Ok(Self { deployment, layout, installed, client, keys })
    }

    /// Turns the switches; the plugin reads them at the next request.
    async fn switch(&self, flaws: &[&str], variants: &[&str]) -> Result<()> {
        let json = serde_json::json!({ "mode": "sound", "flaws": flaws, "variants": variants }).to_string();
        // A new file under the same name: it has another time, whatever the clock's grain.
        let script =
            format!("cd {} && printf '%s' '{json}' > .new && mv .new lab-login.json", self.installed.plugin_dir);
        let output =
            self.deployment.engine.exec(&self.deployment.container_id(), Command::new(["sh", "-c", &script])).await?;
        ensure!(output.ok(), "the switches cannot be turned: {}", output.tail(3));
        Ok(())
    }

    /// Starts the process anew, which forgets what it counted.
    async fn fresh(&mut self) -> Result<()> {
        self.deployment.restart().await?;
        self.client = ready(&self.deployment).await?;
        Ok(())
    }

    /// Puts the credential back that a claim has changed.
    async fn mint_again(&mut self) -> Result<()> {
        let remove = Command::new(["rm", "-f", &format!("{}/login/PASSWORD", self.layout.code_dir)]);
        self.deployment.engine.exec(&self.deployment.container_id(), remove).await?;
        self.fresh().await?;
        self.keys = mint::mint(&self.deployment, &self.client, &self.layout, &self.installed).await?;
        Ok(())
    }

    async fn log_in(&mut self) -> Result<()> {
        let lock = &self.deployment.subject.lock;
        let login = lock.scheme.login.as_ref();
        let session = keys::open_session(&self.client, login, &lock.username, self.keys.password()).await;
        self.keys = Keys::new(self.keys.token().to_owned(), self.keys.password().map(str::to_owned), session);
        Ok(())
    }

    async fn examine(&self) -> Result<(Verdict, Vec<Finding>)> {
        let scene = Scene { subject: "mutants", event: Event::Installed, base: URL };
        let examiner = Examiner {
            client: &self.client,
            scheme: &self.deployment.subject.lock.scheme,
            keys: Some(&self.keys),
            routes: Route::all(),
            mutating: true,
            scene,
            progress: &|_, _| {},
        };
        let early = examiner.early(&Reference::default()).await;
        let claimed = examiner.claim(&early, true).await;
        let mut findings = examine::merge(scene, &early, &claimed);
        findings.extend(lockproof::gate::diagnose::sentinels(scene, &early.look, None, &[], &early.findings));
        match examine::verdict(&early, &claimed, &findings) {
            Ok(verdict) => Ok((verdict, findings)),
            Err(why) => bail!("undecided: {why}"),
        }
    }
}

async fn ready(deployment: &Deployment) -> Result<Client> {
    match deployment.wait_ready().await? {
        Readiness::Ready { client, .. } => {
            let life = deployment.life().await?;
            // Past the engine's proxy, which costs as much as the server itself.
            let Some(ip) = life.ip else { return Ok(client) };
            Ok(Client::new(std::net::SocketAddr::new(ip, 8188), std::time::Duration::from_secs(30)))
        }
        Readiness::Down(down) => bail!("{}\n{}", down.why, down.log.join("\n")),
    }
}

/// The line of the table: flaw, verdict, rules, the smallest request of the main one.
fn line(name: &str, verdict: Verdict, findings: &[Finding], rule: &str) -> String {
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in findings.iter().filter(|f| f.rule.id() != rule) {
        *others.entry(finding.rule.id()).or_default() += 1;
    }
    let main = findings.iter().find(|f| f.rule.id() == rule);
    let shown = main.and_then(|f| f.evidence.first()).map_or("NOT FOUND", String::as_str);
    let others: Vec<&str> = others.into_keys().collect();
    let also = if others.is_empty() { String::new() } else { format!(" (+ {})", others.join(", ")) };
    format!("{name:<26} {verdict:<10} {rule}{also}\n    {}\n", redact(shown))
}

/// Names and counts that differ from run to run.
fn redact(text: &str) -> String {
    let token = regex_lite::Regex::new(r"\$2b\$04\$[./A-Za-z0-9]{53}").expect("a pattern");
    let nonce = regex_lite::Regex::new("lockproof-[a-z2-9]{8}").expect("a pattern");
    let text = token.replace_all(text, "$$COMFYUI_API_TOKEN");
    nonce.replace_all(&text, "lockproof-<nonce>").into_owned()
}

async fn run_flaws(key: &str, mine: impl Fn(usize) -> bool) -> Result<(String, Vec<String>)> {
    let engine = Engine::connect().await?;
    let run = Run::new();
    let result = flaws_on(&engine, &run, key, mine).await;
    engine.sweep_run(run.id()).await?;
    result
}

async fn flaws_on(
    engine: &Engine,
    run: &Run,
    key: &str,
    mine: impl Fn(usize) -> bool,
) -> Result<(String, Vec<String>)> {
    let mut bench = Bench::up(engine, run, key).await?;
    let (mut text, mut wrong) = (String::new(), Vec::new());
    let flaws: Vec<Flaw> = table()?.flaws.into_iter().filter(Flaw::shows_at_runtime).collect();
    // For the one who hunts one: LOCKPROOF_FLAWS=name,name
    let wanted = std::env::var("LOCKPROOF_FLAWS").unwrap_or_default();
    let wanted = |name: &str| wanted.is_empty() || wanted.split(',').any(|w| w == name);
    for (_, flaw) in flaws.iter().enumerate().filter(|(index, flaw)| mine(*index) && wanted(&flaw.name)) {
        let begun = std::time::Instant::now();
        bench.switch(&[&flaw.name], &[]).await?;
        if flaw.session.is_some() {
            bench.log_in().await?;
        }
        let (verdict, findings) = match bench.examine().await {
            Ok(seen) => seen,
            Err(e) => {
                wrong.push(format!("{}: {e:#}", flaw.name));
                (Verdict::Down, Vec::new())
            }
        };
        let rules: Vec<&str> = findings.iter().map(|f| f.rule.id()).collect();
        if !rules.contains(&flaw.rule.as_str()) {
            wrong.push(format!("{}: not found under {}; found: {rules:?}, {verdict}", flaw.name, flaw.rule));
        }
        for rule in &rules {
            if *rule != flaw.rule && !flaw.also.iter().any(|a| a == rule) && *rule != "lock/token-leak" {
                let shown = findings.iter().find(|f| f.rule.id() == *rule).map(|f| f.evidence.join("; "));
                wrong.push(format!(
                    "{}: {rule} is another cause than {}: {}",
                    flaw.name,
                    flaw.rule,
                    shown.unwrap_or_default()
                ));
            }
        }
        if verdict != flaw.verdict {
            wrong.push(format!("{}: the verdict is {verdict}, not {}", flaw.name, flaw.verdict));
        }
        let told = line(&flaw.name, verdict, &findings, &flaw.rule);
        text.push_str(&told);
        if flaw.leaves_traces() {
            bench.switch(&[], &[]).await?;
            bench.mint_again().await?;
        }
        eprint!("{:>5} ms {told}", begun.elapsed().as_millis());
    }
    bench.deployment.take_down().await?;
    Ok((text, wrong))
}

fn conclude(name: &str, seen: (String, Vec<String>)) -> Result<()> {
    let (text, wrong) = seen;
    ensure!(wrong.is_empty(), "{} of the flaws are not seen as they are:\n{}", wrong.len(), wrong.join("\n"));
    if std::env::var_os("LOCKPROOF_FLAWS").is_none() {
        // A key that the server makes at its start.
        let filters = vec![(r"access_token=[0-9a-f]{32}", "access_token=[key]")];
        insta::with_settings!({ omit_expression => true, filters => filters }, { insta::assert_snapshot!(name, text) });
    }
    Ok(())
}

#[tokio::test]
async fn every_flaw_is_found_under_its_rule_first_half() -> Result<()> {
    conclude("flaws_first_half", run_flaws("m0", |index| index % 2 == 0).await?)
}

#[tokio::test]
async fn every_flaw_is_found_under_its_rule_second_half() -> Result<()> {
    conclude("flaws_second_half", run_flaws("m1", |index| index % 2 == 1).await?)
}

#[tokio::test]
async fn a_sound_lock_has_no_finding_however_unusual_it_is() -> Result<()> {
    let engine = Engine::connect().await?;
    let run = Run::new();
    let result = variants_on(&engine, &run).await;
    engine.sweep_run(run.id()).await?;
    let wrong = result?;
    ensure!(wrong.is_empty(), "{} sound locks have findings:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

async fn variants_on(engine: &Engine, run: &Run) -> Result<Vec<String>> {
    let mut bench = Bench::up(engine, run, "m2").await?;
    let variants = table()?.sound;
    ensure!(variants.len() >= 6, "only {} sound variants", variants.len());
    let mut wrong = Vec::new();
    let names = variants.iter().map(|v| v.name.as_str());
    for name in std::iter::once("").chain(names) {
        let switched: Vec<&str> = if name.is_empty() { vec![] } else { vec![name] };
        bench.switch(&[], &switched).await?;
        bench.log_in().await?;
        let (verdict, findings) = bench.examine().await.with_context(|| name.to_owned())?;
        if verdict != Verdict::Locked || findings.iter().any(|f| f.severity != Severity::Note) {
            let rules: Vec<String> = findings.iter().map(|f| format!("{} {:?}", f.rule, f.evidence)).collect();
            wrong.push(format!("`{name}`: {verdict}: {}", rules.join("; ")));
        }
    }
    bench.deployment.take_down().await?;
    Ok(wrong)
}
