"""Parses expositions with the official client's parsers and prints the result.

Standard input: a JSON list of {"openmetrics": bool, "text": text}. Standard output: for each exposition a JSON object of
its families by name. A family has type, unit, help and samples; a sample is a list of name, labels, value, and exemplar
or null. If a parser rejects an exposition, the program exits with the parser's error.
"""

import json
import sys

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as text


def exemplar(sample):
    if sample.exemplar is None:
        return None
    return {
        "labels": sample.exemplar.labels,
        "value": sample.exemplar.value,
        "timestamp": float(sample.exemplar.timestamp),
    }


def parsed(exposition):
    parser = openmetrics if exposition["openmetrics"] else text
    return {
        family.name: {
            "type": family.type,
            "unit": family.unit,
            "help": family.documentation,
            "samples": [[s.name, s.labels, str(s.value), exemplar(s)] for s in family.samples],
        }
        for family in parser.text_string_to_metric_families(exposition["text"])
    }


json.dump([parsed(exposition) for exposition in json.load(sys.stdin)], sys.stdout)
