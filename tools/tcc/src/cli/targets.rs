//! `tcc targets`.

use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use tcc::measure::measure;
use tcc::target::{KNOWN, WRITTEN};
use tcc::{Error, Target};
use tcc_passes::cost::{Machine, MeasuredMachine};

use super::{Failure, Outcome};

#[derive(Args)]
pub struct Arguments {
    /// Measure this machine, print what was found and keep it as the machine model of target `cpu`.
    #[arg(long)]
    measure: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A target as `--json` prints it.
#[derive(Serialize)]
struct Listed {
    name: &'static str,
    description: &'static str,
    /// None for targets that this build cannot compile for.
    machine_model: Option<Machine>,
    machine_model_origin: Option<String>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    if arguments.measure {
        return measured(arguments.json);
    }
    if arguments.json {
        let listed = KNOWN.iter().chain(WRITTEN).map(|(name, description)| {
            let target = Target::named(name).ok();
            let (machine_model, machine_model_origin) =
                target.map_or((None, None), |target| (Some(target.cost), Some(target.cost_origin)));
            Listed { name, description, machine_model, machine_model_origin }
        });
        return super::common::print_json(&listed.collect::<Vec<_>>());
    }
    for (name, doc) in KNOWN {
        match Target::named(name) {
            Ok(target) => {
                let cost = &target.cost;
                println!(
                    "{name:16} {doc}; {} bit vectors, {:.0} GFLOP/s f32 and {:.0} GOP/s int8 a core ({})",
                    target.machine.vector_bits, cost.f32_gigaflops, cost.int8_gigaops, target.cost_origin
                );
            }
            Err(error) => println!("{name:16} {doc}; not in this build: {error}"),
        }
    }
    for (name, doc) in WRITTEN {
        println!("{name:16} {doc}");
    }
    Ok(())
}

fn measured(json: bool) -> Outcome {
    let path = MeasuredMachine::path()
        .ok_or_else(|| Failure::Usage("no folder for the result: set TCC_CACHE_DIR".into()))?;
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    let found = measure(&mut |what| spinner.set_message(format!("measuring: {what}")));
    spinner.finish_and_clear();
    let found = found?;
    found.write(&path).map_err(Error::from)?;
    if json {
        return super::common::print_json(&found);
    }
    println!("{}, {} threads", found.processor, found.threads);
    println!("{:22} {:>12} {:>12}", "", "one thread", "all threads");
    for rate in &found.rates {
        println!("{:22} {:12.1} {:12.1} {}", rate.name, rate.one_thread, rate.all_threads, rate.unit);
    }
    for level in &found.bandwidths {
        let size = level.bytes.map_or(String::new(), |bytes| format!(" ({} KiB)", bytes >> 10));
        let name = format!("read {}{size}", level.level);
        println!("{name:22} {:12.1} {:12.1} GB/s", level.one_thread, level.all_threads);
    }
    println!("{:22} {:12} {:12.2} us", "launch", "", found.launch_microseconds);
    println!("kept in {}; target `cpu` is compiled for it from now on", path.display());
    Ok(())
}
