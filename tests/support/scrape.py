"""What a daemon's metrics say, as a scraper sees them."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from support.daemon import RunningDaemon


def scrape(daemon: RunningDaemon) -> dict[str, float]:
    """Return every sample by its name and labels, such as ``penstock_refusals_total{reason="SILENT"}``."""
    url = f"http://{daemon.metrics_address}/metrics"
    with urllib.request.urlopen(url, timeout=20) as response:
        text = response.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found
