"""Queries to the Prometheus of yaml/monitoring/prometheus/ through the API server, and the dashboard's queries."""

import json
import math
import re
from urllib.parse import quote, urlencode

from cluster import ROOT
from waiting import Failure


class Prometheus:
    def __init__(self, cluster):
        self.cluster = cluster

    def api(self, path, **parameters):
        """Sends a GET request to the API and returns `data` of the response."""
        target = f"/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/{path}?{urlencode(parameters)}"
        response = json.loads(self.cluster.kubectl(["get", "--raw", target]))
        if response["status"] != "success":
            raise Failure(f"Prometheus: {path} {parameters}: {response}")
        return response["data"]

    def query(self, promql):
        """Runs an instant query and returns [(labels, value)]."""
        return [(one["metric"], float(one["value"][1])) for one in self.api("query", query=promql)["result"]]

    def value(self, promql):
        """Returns the value of an instant query whose result is one series, or None if the result is empty."""
        found = self.query(promql)
        if len(found) > 1:
            raise Failure(f"{promql} has {len(found)} series")
        return found[0][1] if found else None

    def range(self, promql, start, end, step):
        """Runs a range query and returns the samples of all its series."""
        result = self.api("query_range", query=promql, start=start, end=end, step=step)["result"]
        return [float(value) for series in result for _, value in series["values"]]

    def label_values(self, label, selector):
        return self.api(f"label/{quote(label)}/values", **{"match[]": selector})


class Dashboard:
    """dashboard.json, with its variables set to the values that Grafana sets when it opens."""

    def __init__(self, prometheus):
        self.prometheus = prometheus
        self.board = json.loads((ROOT / "dashboard.json").read_text())
        # Grafana's built-in variables.
        self.variables = {"__rate_interval": "1m", "__range": "5m", "__interval": "15s"}
        for variable in self.board["templating"]["list"]:
            if variable["type"] != "datasource":
                self.variables[variable["name"]] = self._first_choice(variable)

    def _first_choice(self, variable):
        chosen = variable["current"]["value"]
        chosen = chosen if isinstance(chosen, list) else [chosen]
        if chosen != ["$__all"]:
            return "|".join(chosen)
        if variable.get("allValue"):
            return variable["allValue"]
        function, query = re.fullmatch(r"(\w+)\((.*)\)", variable["query"]["query"]).groups()
        if function == "label_values":
            selector, label = re.fullmatch(r"(.*), *(\w+)", query).groups()
            values = self.prometheus.label_values(label, self._interpolate(selector))
        else:
            # query_result: the variable's regular expression extracts a label from each series, given as text.
            label = re.match(r"/(\w+)=", variable["regex"])[1]
            values = [re.escape(labels[label]) for labels, _ in self.prometheus.query(self._interpolate(query))]
        return "(" + "|".join(values).replace("\\", "\\\\") + ")"

    def _interpolate(self, text):
        return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: self.variables[match[1] or match[2]], text)

    def results(self):
        """Yields, for each query of each panel, the panel's title, the query, and how many numbers it returns."""
        panels = [inner for panel in self.board["panels"] for inner in [panel, *panel.get("panels", [])]]
        for panel in panels:
            for target in panel.get("targets", []):
                query = self._interpolate(target["expr"])
                values = [value for _, value in self.prometheus.query(query)]
                yield panel["title"], query, sum(not math.isnan(value) for value in values)
