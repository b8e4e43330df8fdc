//! A parser for OpenMetrics 2.0 that follows the ABNF of its specification and the rules of its prose.
//!
//! It panics if the grammar does not allow a text, or if a line is repeated or misplaced.

use super::model::{Exemplar, Family, Histogram, LabelMap, Metric, Native, Value, by_index};

/// The rest of the text to parse.
struct Parser<'a>(&'a str);

/// `exposition`
pub fn parse(text: &str) -> Vec<Family> {
    let mut parser = Parser(text);
    let mut families: Vec<Family> = Vec::new();
    while !parser.takes("# EOF") {
        if parser.0.starts_with('#') {
            parser.metric_descriptor(&mut families);
        } else {
            parser.sample(families.last_mut().expect("metadata before samples"));
        }
    }
    assert_eq!(parser.0, "\n", "the exposition ends with EOF and a line feed");
    for (place, family) in families.iter().enumerate() {
        let is_first = families[..place].iter().all(|before| before.name != family.name);
        assert!(is_first, "{} is interleaved", family.name);
    }
    families
}

impl<'a> Parser<'a> {
    fn takes(&mut self, literal: &str) -> bool {
        let rest = self.0.strip_prefix(literal);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, literal: &str) {
        assert!(self.takes(literal), "expected {literal:?} at {:?}", self.line());
    }

    fn line(&self) -> &'a str {
        self.0.lines().next().unwrap_or_default()
    }

    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|char| !is_part(char)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// `metric-descriptor`, in the order TYPE, UNIT, HELP, each at most once
    fn metric_descriptor(&mut self, families: &mut Vec<Family>) {
        self.expect("# ");
        let what = self.take_while(|char| char.is_ascii_uppercase());
        self.expect(" ");
        let name = self.metricname();
        self.expect(" ");
        let text = self.take_while(|char| char != '\n');
        assert!(!text.contains(['\\', '"', '\r']), "{text:?} would need to be unescaped");
        self.expect("\n");
        if what == "TYPE" {
            assert!(["counter", "gauge", "histogram", "info"].contains(&text), "{text}");
            assert!(text != "info" || name.ends_with("_info"));
            assert!(text != "counter" || name.ends_with("_total"));
            families.push(Family {
                name: name.to_owned(),
                kind: text.to_owned(),
                ..Family::default()
            });
            return;
        }
        let family = families.last_mut().expect("TYPE is first");
        assert_eq!(family.name, name);
        assert!(
            family.help.is_empty() && family.metrics.is_empty(),
            "{what} of {name} is too late"
        );
        match what {
            "UNIT" => {
                assert!(family.unit.is_empty() && family.kind != "info");
                assert!(name.trim_end_matches("_total").ends_with(&format!("_{text}")));
                family.unit = text.to_owned();
            }
            "HELP" => family.help = text.to_owned(),
            _ => panic!("a line that begins with # but is not metadata: {what}"),
        }
    }

    /// `sample`
    fn sample(&mut self, family: &mut Family) {
        let name = self.metricname();
        assert_eq!(name, family.name, "a metric has the name of its family");
        let labels = if self.0.starts_with('{') {
            self.labels_in_braces()
        } else {
            LabelMap::new()
        };
        assert!(
            family.metrics.iter().all(|metric| metric.labels != labels),
            "{labels:?} twice"
        );
        self.expect(" ");
        let value = if self.takes("{count:") {
            assert_eq!(family.kind, "histogram");
            assert!(!labels.contains_key("le"));
            Value::Histogram(self.histogram_value())
        } else {
            assert_ne!(family.kind, "histogram", "a composite value is required");
            let value = self.number();
            assert!(family.kind != "info" || value == 1.0);
            assert!(family.kind != "counter" || value >= 0.0);
            Value::Number(value)
        };
        let start_ms = self.takes(" st@").then(|| self.timestamp_ms());
        assert_eq!(
            start_ms.is_some(),
            ["counter", "histogram"].contains(&family.kind.as_str())
        );
        let mut exemplars = Vec::new();
        while self.takes(" # ") {
            let labels = self.labels_in_braces();
            self.expect(" ");
            let value = self.number();
            self.expect(" ");
            exemplars.push(Exemplar {
                labels,
                value,
                timestamp_ms: self.timestamp_ms(),
            });
        }
        self.expect("\n");
        family.metrics.push(Metric {
            labels,
            value,
            start_ms,
            exemplars,
        });
    }

    /// `histogram-value` after `count:`, with native and classic buckets in this order, or only classic ones.
    fn histogram_value(&mut self) -> Histogram {
        let count = self.integer();
        self.expect(",sum:");
        let sum = self.number();
        self.expect(",");
        let native = self.takes("schema:").then(|| self.native_buckets());
        self.expect("bucket:[");
        let mut classic: Vec<(f64, u64)> = Vec::new();
        while !self.takes("+Inf:") {
            let bound = self.realnumber();
            self.expect(":");
            classic.push((bound.parse().unwrap(), self.integer()));
            self.expect(",");
        }
        classic.push((f64::INFINITY, self.integer()));
        self.expect("]}");
        assert!(classic.is_sorted_by(|below, above| below.0 < above.0 && below.1 <= above.1));
        assert_eq!(classic.last().unwrap().1, count, "the count is that of +Inf");
        if let Some(native) = &native {
            assert_eq!(native.zero_count + native.positive.values().sum::<u64>(), count);
        }
        Histogram {
            count,
            sum,
            classic,
            native,
        }
    }

    /// `native-buckets` after `schema:`, without negative ones, and the comma after them.
    fn native_buckets(&mut self) -> Native {
        let schema = self.signed();
        assert!((-4..=8).contains(&schema));
        self.expect(",zero_threshold:");
        let zero_threshold = self.realnumber().parse().unwrap();
        self.expect(",zero_count:");
        let zero_count = self.integer();
        self.expect(",");
        let (mut spans, mut counts) = (Vec::new(), Vec::new());
        if self.takes("positive_spans:[") {
            loop {
                let offset = self.signed();
                assert!(spans.is_empty() || offset > 0, "only the first offset may be negative");
                self.expect(":");
                let length = u32::try_from(self.integer()).unwrap();
                assert!(length > 0);
                spans.push((offset, length));
                if !self.takes(",") {
                    break;
                }
            }
            self.expect("],positive_buckets:[");
            loop {
                counts.push(self.integer());
                if !self.takes(",") {
                    break;
                }
            }
            self.expect("],");
            assert!(counts.first() != Some(&0) && counts.last() != Some(&0));
            assert!(counts.windows(2).all(|pair| pair != [0, 0]), "empty buckets");
        }
        Native {
            schema,
            zero_threshold,
            zero_count,
            positive: by_index(&spans, &counts),
        }
    }

    /// `labels-in-braces`, values without escapes
    fn labels_in_braces(&mut self) -> LabelMap {
        let mut labels = LabelMap::new();
        self.expect("{");
        while !self.takes("}") {
            if !labels.is_empty() {
                self.expect(",");
            }
            let name = self.take_while(|char| char.is_ascii_alphanumeric() || char == '_');
            assert!(name.starts_with(|char: char| char.is_ascii_alphabetic()), "{name:?}");
            self.expect("=\"");
            let value = self.take_while(|char| !['"', '\\', '\n'].contains(&char));
            self.expect("\"");
            assert!(
                labels.insert(name.to_owned(), value.to_owned()).is_none(),
                "{name} twice"
            );
        }
        labels
    }

    /// `metricname` without colons, which are reserved
    fn metricname(&mut self) -> &'a str {
        let name = self.take_while(|char| char.is_ascii_alphanumeric() || char == '_');
        assert!(name.starts_with(|char: char| char.is_ascii_alphabetic()), "{name:?}");
        for suffix in ["_count", "_sum", "_gcount", "_gsum", "_bucket"] {
            assert!(!name.ends_with(suffix), "{name} has a discouraged suffix");
        }
        name
    }

    /// `realnumber`
    fn realnumber(&mut self) -> &'a str {
        let whole = self.0;
        let sign = |parser: &mut Parser| parser.takes("-") || parser.takes("+");
        let digits = |parser: &mut Parser| parser.take_while(|char| char.is_ascii_digit()).len();
        sign(self);
        let mut count = digits(self);
        if self.takes(".") {
            count += digits(self);
        }
        assert!(count > 0, "no number at {whole:?}");
        if self.takes("e") {
            sign(self);
            assert!(digits(self) > 0);
        }
        &whole[..whole.len() - self.0.len()]
    }

    /// `number`; ours are never infinite or NaN
    fn number(&mut self) -> f64 {
        self.realnumber().parse().unwrap()
    }

    /// `integer`
    fn signed(&mut self) -> i32 {
        self.realnumber().parse().expect("an integer")
    }

    /// `number`, as an integer
    fn integer(&mut self) -> u64 {
        self.realnumber().parse().expect("an integer")
    }

    /// `timestamp`, in whole milliseconds
    fn timestamp_ms(&mut self) -> u64 {
        let text = self.realnumber();
        let (seconds, milliseconds) = text.split_once('.').expect("a decimal point");
        assert_eq!(milliseconds.len(), 3);
        format!("{seconds}{milliseconds}").parse().unwrap()
    }
}
