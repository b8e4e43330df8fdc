//! The parts of dashboard.json that the tests use.

use std::collections::HashSet;

use serde_json::Value;

pub struct Board {
    pub json: Value,
    /// The panels that are visible when the dashboard opens.
    pub story: Vec<Panel>,
    /// The collapsed rows.
    pub rows: Vec<Row>,
    /// The query variables, in order.
    pub variables: Vec<Variable>,
    /// The choices of the variable *Scrape interval*.
    pub scrape_intervals: Vec<String>,
    /// The uids of all data sources that occur anywhere.
    pub data_sources: HashSet<String>,
}

pub struct Row {
    pub heading: Panel,
    pub panels: Vec<Panel>,
}

pub struct Variable {
    pub name: String,
    pub query: String,
    pub regex: String,
}

pub struct Panel {
    pub id: u64,
    pub title: String,
    pub description: String,
    pub unit: Option<String>,
    /// The text that the panel shows if its queries return nothing.
    pub empty_state: Option<String>,
    pub x: u64,
    pub y: u64,
    pub width: u64,
    pub height: u64,
    pub queries: Vec<Query>,
}

pub struct Query {
    pub expression: String,
    pub instant: bool,
    /// "Min step" in Grafana.
    pub interval: String,
}

impl Board {
    pub fn read() -> Board {
        let text = std::fs::read_to_string(support::root().join("dashboard.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let mut board = Board {
            story: Vec::new(),
            rows: Vec::new(),
            variables: Vec::new(),
            scrape_intervals: Vec::new(),
            data_sources: HashSet::new(),
            json: Value::Null,
        };
        for panel in json["panels"].as_array().unwrap() {
            if panel["type"] == "row" {
                assert_eq!(panel["collapsed"], true);
                board.rows.push(Row {
                    heading: Panel::read(panel),
                    panels: panel["panels"].as_array().unwrap().iter().map(Panel::read).collect(),
                });
            } else {
                board.story.push(Panel::read(panel));
            }
        }
        for variable in json["templating"]["list"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            if variable["type"] == "query" {
                board.variables.push(Variable {
                    name: text(&variable["name"]),
                    query: text(&variable["query"]["query"]),
                    regex: text(&variable["regex"]),
                });
            } else if variable["name"] == "scrape_interval" {
                let choices = variable["query"].as_str().unwrap().split(',');
                board.scrape_intervals = choices.map(str::to_owned).collect();
            }
        }
        collect_data_sources(&json, &mut board.data_sources);
        board.json = json;
        board
    }

    /// Returns every panel, except the headings of rows.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.story.iter().chain(self.rows.iter().flat_map(|row| &row.panels))
    }
}

impl Panel {
    fn read(json: &Value) -> Panel {
        let place = |name: &str| json["gridPos"][name].as_u64().unwrap();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let defaults = &json["fieldConfig"]["defaults"];
        let query = |target: &Value| Query {
            expression: target["expr"].as_str().unwrap().to_owned(),
            instant: target["instant"] == true,
            interval: text(&target["interval"]).unwrap_or_default(),
        };
        Panel {
            id: json["id"].as_u64().unwrap(),
            title: text(&json["title"]).unwrap(),
            description: text(&json["description"]).unwrap_or_default(),
            unit: text(&defaults["unit"]),
            empty_state: text(&defaults["noValue"]),
            x: place("x"),
            y: place("y"),
            width: place("w"),
            height: place("h"),
            queries: json["targets"].as_array().into_iter().flatten().map(query).collect(),
        }
    }
}

fn collect_data_sources(json: &Value, into: &mut HashSet<String>) {
    match json {
        Value::Object(map) => {
            if let Some(uid) = map.get("datasource").and_then(|source| source["uid"].as_str()) {
                into.insert(uid.to_owned());
            }
            map.values().for_each(|value| collect_data_sources(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_data_sources(value, into)),
        _ => {}
    }
}
