//! Which process of a job this one is, from the environment that `torchrun`, `srun` or Kubernetes sets.

use anyhow::{Context, Result, bail};

/// First port for jobs of `srun`, which sets none.
const FIRST_PORT: u64 = 15_000;

/// Number of ports for jobs of `srun`.
const PORTS: u64 = 20_000;

/// The place of this process in a job of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world_size: usize,
    /// Number of this process among those of its machine, from 0: that of its GPU.
    pub local_rank: usize,
    /// Host of the store.
    pub host: String,
    /// Port of the store.
    pub port: u16,
    /// Whether this process serves the store.
    pub serves: bool,
    /// Prefix of keys in the store; a restarted job has another one.
    pub prefix: String,
}

impl Launch {
    /// Reads the environment of this process; none where it runs alone.
    ///
    /// # Errors
    /// When variables are missing, malformed or contradict each other.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::of(&|name| std::env::var(name).ok())
    }

    /// As [`from_environment`](Self::from_environment), with `variable` for the environment.
    ///
    /// # Errors
    /// As there.
    pub fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let variables = Variables(variable);
        let launch = match (variables.number("RANK")?, variables.number("WORLD_SIZE")?) {
            (Some(rank), Some(world_size)) => Self::of_torchrun(&variables, rank, world_size)?,
            (None, None) => match Self::of_srun(&variables)? {
                Some(launch) => launch,
                None => return Ok(None),
            },
            (Some(_), None) => {
                bail!("RANK is set, but WORLD_SIZE is not: torchrun and Kubernetes set both; unset RANK to train alone")
            }
            (None, Some(_)) => bail!(
                "WORLD_SIZE is set, but RANK is not: torchrun and Kubernetes set both; unset WORLD_SIZE to train alone"
            ),
        };
        if launch.world_size == 0 || launch.rank >= launch.world_size {
            bail!("rank {} of {} processes: ranks go from 0 to WORLD_SIZE - 1", launch.rank, launch.world_size);
        }
        Ok((launch.world_size > 1).then_some(launch))
    }

    /// The variables of torchrun, which PyTorch's operators for Kubernetes also set.
    fn of_torchrun(variables: &Variables, rank: usize, world_size: usize) -> Result<Self> {
        let needed = |name: &str| {
            let missing =
                || format!("RANK and WORLD_SIZE are set, but {name} is not: it is where rank 0 can be reached");
            if world_size == 1 { Ok(String::new()) } else { variables.text(name).with_context(missing) }
        };
        let (host, port) = (needed("MASTER_ADDR")?, needed("MASTER_PORT")?);
        let port = if port.is_empty() { 0 } else { parsed("MASTER_PORT", &port)? };
        // torchrun's agent serves the store, and keeps it when it restarts the processes.
        let agent = variables.text("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True");
        let restart = variables.text("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
        Ok(Self {
            rank,
            world_size,
            local_rank: variables.number("LOCAL_RANK")?.unwrap_or(0),
            host,
            port,
            serves: rank == 0 && !agent,
            prefix: format!("mrm/{restart}"),
        })
    }

    /// The variables of a job step. The script of a batch job has most of them, too, but no step.
    fn of_srun(variables: &Variables) -> Result<Option<Self>> {
        let (Some(job), Some(step)) =
            (variables.number::<u64>("SLURM_JOB_ID")?, variables.number::<u64>("SLURM_STEP_ID")?)
        else {
            return Ok(None);
        };
        let world_size = match variables.number("SLURM_STEP_NUM_TASKS")? {
            Some(tasks) => Some(tasks),
            None => variables.number("SLURM_NTASKS")?,
        };
        let Some(world_size) = world_size.filter(|tasks| *tasks > 1) else { return Ok(None) };
        let rank = variables.number("SLURM_PROCID")?.context("SLURM_STEP_ID is set, but SLURM_PROCID is not")?;
        let nodes = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"].into_iter().find_map(|name| variables.text(name));
        let host = variables.text("MASTER_ADDR").or_else(|| nodes.as_deref().and_then(first_host));
        let port = match variables.text("MASTER_PORT") {
            Some(port) => parsed("MASTER_PORT", &port)?,
            // Steps that run at the same time have different ports.
            None => (FIRST_PORT + (job * 16 + step % 16) % PORTS) as u16,
        };
        Ok(Some(Self {
            rank,
            world_size,
            local_rank: variables.number("SLURM_LOCALID")?.unwrap_or(0),
            host: host
                .context("neither MASTER_ADDR nor SLURM_JOB_NODELIST is set: it is where rank 0 can be reached")?,
            port,
            serves: rank == 0,
            prefix: format!("mrm/{step}"),
        }))
    }
}

/// Variables; an empty one counts as not set.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>> {
        self.text(name).map(|value| parsed(name, &value)).transpose()
    }
}

fn parsed<N: std::str::FromStr>(name: &str, value: &str) -> Result<N> {
    value.parse().ok().with_context(|| format!("{name}={value}: not a number that it can have"))
}

/// The first name of Slurm's compressed list of nodes: `gpu[03-05,9],x7` → `gpu03`.
fn first_host(list: &str) -> Option<String> {
    let end = list.find(['[', ',']).unwrap_or(list.len());
    let (head, rest) = list.split_at(end);
    let digits: String = match rest.strip_prefix('[') {
        Some(inside) => inside.chars().take_while(char::is_ascii_digit).collect(),
        None => String::new(),
    };
    Some(format!("{head}{digits}")).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Option<Launch>> {
        Launch::of(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    fn error(variables: &[(&str, &str)]) -> String {
        format!("{:#}", launch(variables).unwrap_err())
    }

    const RENDEZVOUS: [(&str, &str); 2] = [("MASTER_ADDR", "n1"), ("MASTER_PORT", "29500")];

    #[test]
    fn torchrun_sets_everything() {
        let mut variables = vec![("RANK", "1"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")];
        variables.extend(RENDEZVOUS);
        let alone = launch(&variables).unwrap().unwrap();
        assert_eq!((alone.rank, alone.world_size, alone.local_rank, alone.serves), (1, 4, 1, false));
        assert_eq!((alone.host.as_str(), alone.port, alone.prefix.as_str()), ("n1", 29500, "mrm/"));
        variables[0].1 = "0";
        assert!(launch(&variables).unwrap().unwrap().serves);
        variables.extend([("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")]);
        let restarted = launch(&variables).unwrap().unwrap();
        assert_eq!((restarted.serves, restarted.prefix.as_str()), (false, "mrm/2"));
    }

    #[test]
    fn srun_gives_the_first_node_and_a_port() {
        let variables = [
            ("SLURM_JOB_ID", "70001"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_NTASKS", "2"),
            ("SLURM_PROCID", "1"),
            ("SLURM_LOCALID", "0"),
            ("SLURM_JOB_NODELIST", "gpu[03-05,9],x7"),
        ];
        let step = launch(&variables).unwrap().unwrap();
        assert_eq!((step.rank, step.world_size, step.local_rank, step.host.as_str()), (1, 2, 0, "gpu03"));
        assert_eq!(step.port, 15_016);
        // The script of a batch job has no step: it trains alone.
        assert_eq!(
            launch(&variables.map(|(name, value)| (name, if name == "SLURM_STEP_ID" { "" } else { value }))).unwrap(),
            None
        );
        let hosts = ["a1,b2", "node", "n[1-4]", "gpu[03-05,9],x7", ""].map(first_host);
        let expected = [Some("a1"), Some("node"), Some("n1"), Some("gpu03"), None];
        assert_eq!(hosts, expected.map(|host| host.map(str::to_owned)));
    }

    #[test]
    fn one_process_is_no_job() {
        assert_eq!(launch(&[]).unwrap(), None);
        assert_eq!(launch(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
        assert_eq!(launch(&[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")]).unwrap(), None);
    }

    #[test]
    fn partial_and_wrong_variables_are_errors_that_name_them() {
        assert!(error(&[("RANK", "0")]).starts_with("RANK is set, but WORLD_SIZE is not"));
        assert!(error(&[("WORLD_SIZE", "2")]).starts_with("WORLD_SIZE is set, but RANK is not"));
        assert!(error(&[("RANK", "0"), ("WORLD_SIZE", "2")]).contains("MASTER_ADDR is not"));
        assert!(error(&[("RANK", "0"), ("WORLD_SIZE", "2"), RENDEZVOUS[0]]).contains("MASTER_PORT is not"));
        assert_eq!(error(&[("RANK", "one"), ("WORLD_SIZE", "2")]), "RANK=one: not a number that it can have");
        let beyond = [("RANK", "2"), ("WORLD_SIZE", "2"), RENDEZVOUS[0], RENDEZVOUS[1]];
        assert_eq!(error(&beyond), "rank 2 of 2 processes: ranks go from 0 to WORLD_SIZE - 1");
        let port = [("RANK", "0"), ("WORLD_SIZE", "2"), RENDEZVOUS[0], ("MASTER_PORT", "99999")];
        assert!(error(&port).starts_with("MASTER_PORT=99999"));
    }
}
