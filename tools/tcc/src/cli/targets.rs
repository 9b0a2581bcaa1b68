//! `tcc targets`.

use clap::Args;
use tcc::Target;
use tcc::target::{KNOWN, WRITTEN};

use super::Outcome;

#[derive(Args)]
pub struct Arguments {}

pub fn run(_: &Arguments) -> Outcome {
    for (name, doc) in KNOWN {
        match Target::named(name) {
            Ok(target) => {
                let cost = &target.cost;
                println!(
                    "{name:16} {doc}; {} bit vectors, {:.0} GFLOP/s f32 and {:.0} GOP/s int8 a core (model)",
                    target.machine.vector_bits, cost.f32_gigaflops, cost.int8_gigaops
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
