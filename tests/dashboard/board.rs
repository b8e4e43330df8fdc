//! dashboard.json as far as the tests look into it.

use std::collections::HashSet;

use serde_json::Value;

pub struct Board {
    pub json: Value,
    /// Panels in sight when the dashboard opens.
    pub story: Vec<Panel>,
    /// Row headings.
    pub rows: Vec<Panel>,
    /// Panels in collapsed rows.
    pub details: Vec<Panel>,
    /// Query variables: name and query.
    pub variables: Vec<(String, String)>,
    /// The uids of all data sources that are named anywhere.
    pub data_sources: HashSet<String>,
}

pub struct Panel {
    pub id: u64,
    pub title: String,
    pub description: String,
    pub unit: Option<String>,
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
}

impl Board {
    pub fn read() -> Board {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboard.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let mut board = Board {
            story: Vec::new(),
            rows: Vec::new(),
            details: Vec::new(),
            variables: Vec::new(),
            data_sources: HashSet::new(),
            json: Value::Null,
        };
        for panel in json["panels"].as_array().unwrap() {
            if panel["type"] == "row" {
                assert_eq!(panel["collapsed"], true);
                board.rows.push(Panel::read(panel));
                board
                    .details
                    .extend(panel["panels"].as_array().unwrap().iter().map(Panel::read));
            } else {
                board.story.push(Panel::read(panel));
            }
        }
        for variable in json["templating"]["list"].as_array().unwrap() {
            if variable["type"] == "query" {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                board
                    .variables
                    .push((text(&variable["name"]), text(&variable["query"]["query"])));
            }
        }
        collect_data_sources(&json, &mut board.data_sources);
        board.json = json;
        board
    }

    /// Every panel that shows something.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.story.iter().chain(&self.details)
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
