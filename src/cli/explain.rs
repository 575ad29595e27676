//! `riderflow explain`: the dataflow graph as text, Mermaid or Graphviz.

use std::fmt::{self, Write};

use super::Failure;
use crate::config;
use crate::dataflow::graph::{Flow, Graph, Kind, Site, Stage, Store, StoreKind};

/// Prints the dataflow graph.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pipeline file
    pub(super) pipeline: std::path::PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For reading, with the pipeline's thresholds
    Text,
    /// A Mermaid flowchart, for Markdown
    Mermaid,
    /// A Graphviz digraph
    Dot,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let graph = Graph::of(&config::load(&args.pipeline)?);
    let text = match args.format {
        Format::Text => text(&graph),
        Format::Mermaid => mermaid(&graph),
        Format::Dot => dot(&graph),
    };
    super::print(&text.map_err(anyhow::Error::from)?)
}

fn kinds(stage: &Stage) -> String {
    let kinds: Vec<_> = stage.kinds.iter().copied().map(Kind::as_str).collect();
    kinds.join(" + ")
}

fn partitions(store: &Store) -> Option<String> {
    store.partitions.map(|n| match n {
        1 => "1 partition".into(),
        n => format!("{n} partitions"),
    })
}

fn label(flow: &Flow) -> String {
    match flow.route {
        Some(route) => format!("{}, {}", flow.carries, route.as_str()),
        None => flow.carries.into(),
    }
}

/// Stages in the order of the flow, each with what comes in, what it does and what goes out.
fn text(graph: &Graph) -> Result<String, fmt::Error> {
    let mut out = String::new();
    writeln!(out, "pipeline {}", graph.pipeline)?;
    for site in Site::ALL {
        let mut stages = graph.at(site).peekable();
        if stages.peek().is_none() {
            continue;
        }
        writeln!(out, "\n{}", site.as_str())?;
        for stage in stages {
            writeln!(out, "  {} ({})", stage.name, kinds(stage))?;
            for flow in graph.flows_into(stage.name) {
                writeln!(out, "    <- {}: {}", node(graph, &flow.from), label(flow))?;
            }
            for line in &stage.does {
                writeln!(out, "    {line}")?;
            }
            let is_store = |flow: &&Flow| flow.route.is_none();
            for flow in graph.flows_out_of(stage.name).filter(is_store) {
                writeln!(out, "    -> {}: {}", node(graph, &flow.to), label(flow))?;
            }
        }
    }
    Ok(out)
}

/// A stage by its name, a store with what it is.
fn node(graph: &Graph, name: &str) -> String {
    let Some(store) = graph.stores.iter().find(|store| store.name == name) else {
        return name.into();
    };
    match (store.kind, partitions(store)) {
        (StoreKind::Table, _) => format!("table {name}"),
        (StoreKind::Folder, _) => format!("folder {name}"),
        (StoreKind::Topic, None) => format!("topic {name}"),
        (StoreKind::Topic, Some(partitions)) => format!("topic {name} ({partitions})"),
    }
}

/// Names may hold `-` and `.`, which neither language allows in a bare word.
fn id(name: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("n_{}", name.chars().map(legal).collect::<String>())
}

fn mermaid(graph: &Graph) -> Result<String, fmt::Error> {
    let mut out = String::from("flowchart LR\n");
    for store in &graph.stores {
        let name = &store.name;
        match store.kind {
            StoreKind::Topic => writeln!(out, "  {}[/\"{name}\"/]", id(name))?,
            StoreKind::Table | StoreKind::Folder => {
                writeln!(out, "  {}[(\"{name}\")]", id(name))?;
            }
        }
    }
    for site in Site::ALL {
        let mut stages = graph.at(site).peekable();
        if stages.peek().is_none() {
            continue;
        }
        writeln!(out, "  subgraph {site:?}[\"{}\"]", site.as_str())?;
        for stage in stages {
            let (name, kinds) = (stage.name, kinds(stage));
            writeln!(out, "    {}[\"{name}<br/>{kinds}\"]", id(name))?;
        }
        writeln!(out, "  end")?;
    }
    for flow in &graph.flows {
        let (from, to) = (id(&flow.from), id(&flow.to));
        writeln!(out, "  {from} -->|\"{}\"| {to}", label(flow))?;
    }
    Ok(out)
}

fn dot(graph: &Graph) -> Result<String, fmt::Error> {
    let mut out = String::from("digraph riderflow {\n  rankdir=LR;\n  node [shape=box];\n");
    for store in &graph.stores {
        let shape = match store.kind {
            StoreKind::Topic => "cds",
            StoreKind::Table => "cylinder",
            StoreKind::Folder => "folder",
        };
        writeln!(out, "  \"{}\" [shape={shape}];", store.name)?;
    }
    for site in Site::ALL {
        let mut stages = graph.at(site).peekable();
        if stages.peek().is_none() {
            continue;
        }
        writeln!(out, "  subgraph cluster_{site:?} {{")?;
        writeln!(out, "    label=\"{}\";", site.as_str())?;
        for stage in stages {
            let (name, kinds) = (stage.name, kinds(stage));
            writeln!(out, "    \"{name}\" [label=\"{name}\\n{kinds}\"];")?;
        }
        writeln!(out, "  }}")?;
    }
    for flow in &graph.flows {
        let label = label(flow);
        writeln!(
            out,
            "  \"{}\" -> \"{}\" [label=\"{label}\"];",
            flow.from, flow.to
        )?;
    }
    out.push_str("}\n");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pipeline;

    /// Compares with a golden file; with `UPDATE_GOLDEN` set, writes it instead.
    fn golden(file: &str, actual: &str) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/explain");
        let path = std::path::Path::new(folder).join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(&path, actual).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        assert_eq!(actual, expected, "{file}; UPDATE_GOLDEN=1 writes it anew");
    }

    fn default_graph() -> Graph {
        Graph::of(&Pipeline::defaults("rider-alerts"))
    }

    #[test]
    fn the_three_formats_are_as_written_down() {
        let graph = default_graph();
        golden("rider-alerts.txt", &text(&graph).unwrap());
        golden("rider-alerts.mmd", &mermaid(&graph).unwrap());
        golden("rider-alerts.dot", &dot(&graph).unwrap());
    }

    #[test]
    fn without_clickhouse_nothing_of_it_is_shown() {
        let mut pipeline = Pipeline::defaults("no-rows");
        pipeline.clickhouse.enabled = false;
        pipeline.orders.near_repeat = true;
        pipeline.updates.lateness_s = 2.5;
        let graph = Graph::of(&pipeline);
        golden("no-rows.txt", &text(&graph).unwrap());
        for printed in [text(&graph), mermaid(&graph), dot(&graph)] {
            let printed = printed.unwrap();
            for word in ["ClickHouse", "write_rows", "driver_locations"] {
                assert!(!printed.contains(word), "{word} in\n{printed}");
            }
        }
    }
}
