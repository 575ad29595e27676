//! The hosts file, and what makes two pipelines the same.

use super::{Cluster, ClusterError, Identity, parse_hosts};
use crate::config::Pipeline;

#[test]
fn a_hosts_file_is_one_address_a_line_with_comments() {
    let text = "# the city\n\n10.0.0.7:2101 # first\n  riders-1.local:2101  \n[::1]:65535\n\n";
    assert_eq!(
        parse_hosts(text, 3).unwrap(),
        ["10.0.0.7:2101", "riders-1.local:2101", "[::1]:65535"]
    );
}

#[test]
fn a_wrong_line_is_named_with_what_helps() {
    let cases = [
        ("a:1\nb\n", 2, 2, "`b` is no address; write host:port"),
        ("a:1\nb:\n", 2, 2, "`b:` is no address"),
        ("a:1\nb:0\n", 2, 2, "`b:0` is no address"),
        ("a:1\nb:65536\n", 2, 2, "`b:65536` is no address"),
        ("a:1\n:7\n", 2, 2, "`:7` is no address"),
        ("a:1 b:2\n", 2, 1, "`a:1 b:2` is no address"),
        ("http://a:1\n", 1, 1, "`http://a:1` is no address"),
        ("::1:2101\n", 1, 1, "`::1:2101` is no address"),
        ("[::g]:2101\n", 1, 1, "`[::g]:2101` is no address"),
        ("a:1\n\nb:1\na:1\n", 3, 4, "`a:1` stands in line 1 already"),
        ("a:1\nb:1\n# c\nc:1\n", 2, 4, "too many: --processes is 2"),
        ("a:1\n# b:1\n", 2, 2, "1 of 2 addresses are here"),
        ("", 2, 1, "0 of 2 addresses are here"),
    ];
    for (text, processes, line, fault) in cases {
        let (found_line, found) = parse_hosts(text, processes).unwrap_err();
        assert_eq!(found_line, line, "{text:?}: {found}");
        assert!(found.contains(fault), "{text:?}: {found}");
    }
}

#[test]
fn the_errors_of_a_hosts_file_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    let error = Cluster::read(2, 0, &file).unwrap_err();
    assert!(matches!(error, ClusterError::Unreadable { .. }));
    assert!(error.to_string().contains("could not read the hosts file"));
    assert!(error.to_string().contains(&*file.to_string_lossy()));

    std::fs::write(&file, "a:1\nb\n").unwrap();
    let error = Cluster::read(2, 0, &file).unwrap_err().to_string();
    let begin = format!("{}:2: `b`", file.display());
    assert!(error.starts_with(&begin), "{error}");
}

#[test]
fn metrics_of_processes_on_one_machine_have_ports_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    std::fs::write(&file, "a:1\nb:1\n").unwrap();
    let http = |cluster: Cluster| cluster.default_http().to_string();
    assert_eq!(http(Cluster::alone()), "127.0.0.1:9464");
    let read = |process| Cluster::read(2, process, &file).unwrap();
    assert_eq!(http(read(0)), "127.0.0.1:9464");
    assert_eq!(http(read(1)), "127.0.0.1:9465");
    assert!(Cluster::alone().is_alone() && !read(0).is_alone());
}

#[test]
fn two_pipelines_are_the_same_if_all_keys_but_the_services_addresses_are() {
    let parse = |text: &str| Pipeline::parse(text, "test").unwrap();
    let of = |text: &str| Identity::of(&parse(text), 2);
    let plain = of("name = \"riders\"");
    assert_eq!(
        plain,
        of(
            "# a comment\nname = \"riders\"\n[kafka]\nbrokers = \"other:9092\"\n\
            [clickhouse]\nurl = \"http://other:8123\"\n[gateway]\nlisten = \"0.0.0.0:80\""
        )
    );
    assert_ne!(plain, of("name = \"drivers\""));
    assert_ne!(plain, of("name = \"riders\"\n[orders]\nnear_m = 501"));
    assert_ne!(plain, Identity::of(&parse("name = \"riders\""), 3));
}
