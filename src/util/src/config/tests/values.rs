//! Sizes, durations and addresses.

use std::time::Duration;

use proptest::prelude::*;

use crate::config::{parse_duration, parse_host_addr, parse_peer, parse_size, parse_subnet};

#[test]
fn sizes_are_read_as_the_manual_says() {
    for (text, bytes) in [
        ("0", 0),
        ("1048576", 1 << 20),
        ("10G", 10_000_000_000),
        ("10 g", 10_000_000_000),
        ("10GB", 10_000_000_000),
        ("10gib", 10 << 30),
        ("1.5Ki", 1536),
        ("1.5 TiB", 3 << 39),
        ("7B", 7),
        ("16EiB", u64::MAX),
        (".5k", 500),
    ] {
        if text == "16EiB" {
            assert!(parse_size(text).is_err(), "one more than fits");
        } else {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }
    for text in ["", "G", "1.5", "-1", "1e3", "10 XB", "10  G", "1.2.3G", "ten", "10Kibi", "1_000", "1GG"] {
        let error = parse_size(text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("invalid capacity value {text:?}")), "{error}");
    }
}

#[test]
fn durations_are_read_as_systemd_writes_them() {
    let hours = |count: u64| Duration::from_secs(3600 * count);
    for (text, expected) in [
        ("30", Duration::from_secs(30)),
        ("6h", hours(6)),
        ("1d 12h", hours(36)),
        ("1d12h", hours(36)),
        ("15 days 20 seconds", hours(15 * 24) + Duration::from_secs(20)),
        ("2.5 hours", Duration::from_secs(9000)),
        ("1m", Duration::from_secs(60)),
        ("1M", Duration::from_secs(2_630_016)),
        ("y", Duration::from_secs(31_557_600)),
        ("250ms", Duration::from_millis(250)),
        ("5 µs", Duration::from_micros(5)),
        ("2 weeks", hours(14 * 24)),
        ("infinity", Duration::MAX),
    ] {
        assert_eq!(parse_duration(text), Ok(expected), "{text}");
    }
    for text in ["", "soon", "1 fortnight", "-1s", "1e3s", "1..5s", "1000 years"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn addresses_are_told_apart() {
    for text in ["10.0.0.1:3901", "[fc00::1]:3901", "node-1.example.org:3901", "localhost:1"] {
        assert_eq!(parse_host_addr(text).unwrap().to_string(), text);
    }
    for text in ["", "host", "host:", ":3901", "host:70000", "fc00::1:3901", "ho st:1", "http://host:1"] {
        assert!(parse_host_addr(text).is_err(), "{text}");
    }
    assert!(parse_peer("10.0.0.1:3901").unwrap_err().to_string().contains("garage node id"));
    let (subnet, truncated) = parse_subnet("10.1.0.0/8").unwrap();
    assert!(truncated && subnet.contains([10, 200, 0, 1].into()) && !subnet.contains([11, 0, 0, 1].into()));
    assert!(parse_subnet("0.0.0.0/0").unwrap().0.contains([1, 2, 3, 4].into()) && parse_subnet("::/129").is_err());
}

proptest! {
    #[test]
    fn a_size_in_any_unit_is_its_number_times_the_unit(number in 0u64..16_000_000, unit in 0usize..5, space: bool, upper: bool) {
        let (name, scale) = [("k", 1_000), ("mb", 1_000_000), ("kib", 1 << 10), ("Gi", 1 << 30), ("b", 1)][unit];
        let text = format!("{number}{}{name}", if space { " " } else { "" });
        let text = if upper { text.to_uppercase() } else { text };
        prop_assert_eq!(parse_size(&text), Ok(number * scale));
    }

    #[test]
    fn bytes_survive_being_written_as_digits(bytes: u64) {
        prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
    }

    #[test]
    fn fractions_lose_less_than_a_byte(whole in 0u64..1_000_000, milli in 0u64..1000) {
        let exact = u128::from(whole * 1000 + milli) * (1u128 << 40) / 1000;
        prop_assert_eq!(parse_size(&format!("{whole}.{milli:03}TiB")).map(u128::from).ok(), u64::try_from(exact).ok().map(u128::from));
    }

    #[test]
    fn terms_of_a_duration_add_up(hours in 0u64..10_000, minutes in 0u64..10_000, milliseconds in 0u64..10_000) {
        let expected = Duration::from_millis((hours * 3600 + minutes * 60) * 1000 + milliseconds);
        for text in [format!("{hours}h {minutes}min {milliseconds}ms"), format!("{milliseconds} msec{hours} hours{minutes}m")] {
            prop_assert_eq!(parse_duration(&text), Ok(expected), "{}", text);
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in ".{0,40}") {
        let _ = (parse_size(&text), parse_duration(&text), parse_host_addr(&text), parse_peer(&text), parse_subnet(&text));
        let _ = crate::config::Config::parse(&text, "garage.toml");
    }
}
