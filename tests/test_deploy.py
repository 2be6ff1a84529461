"""What lies in deploy/ is what a cluster, a balancer and a dashboard would take."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from stress import dashboard
from threadline.config_sources import SETTINGS, WELL_KNOWN

ROOT = Path(__file__).parents[1]
MANIFESTS = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text("utf-8")))


def of_kind(kind):
    (found,) = [one for one in MANIFESTS if one["kind"] == kind]
    return found


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one["kind"])
def test_every_manifest_fits_kubernetes_own_schema(manifest):
    latest = kubernetes_validate.latest_version()
    kubernetes_validate.validate(manifest, latest, strict=True)


def test_a_manifest_with_a_misspelt_key_would_not():
    wrong = json.loads(json.dumps(of_kind("Deployment")))
    wrong["spec"]["template"]["spec"]["terminationGraceSeconds"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def container():
    (found,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def test_a_pod_is_given_the_time_that_its_drain_may_take():
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    environ = {one["name"]: one["value"] for one in container()["env"]}
    drain = int(environ["THREADLINE_SERVER_DRAIN_SECONDS"])
    wait = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= wait + drain + 15


def test_every_variable_is_a_setting():
    known = {setting.variable for setting in SETTINGS.values()} | set(WELL_KNOWN)
    assert {one["name"] for one in container()["env"]} <= known


def test_pods_are_added_before_the_lines_of_those_there_are_run_out():
    environ = {one["name"]: one["value"] for one in container()["env"]}
    (metric,) = of_kind("HorizontalPodAutoscaler")["spec"]["metrics"]
    wanted = int(metric["pods"]["target"]["averageValue"])
    assert metric["pods"]["metric"]["name"] == "threadline_calls"
    assert wanted < int(environ["THREADLINE_SERVER_MAX_CALLS"])


def test_labels_and_ports_of_all_manifests_meet():
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert of_kind(kind)["spec"]["selector"]["matchLabels"] == labels
    service = of_kind("Service")["spec"]
    assert service["selector"] == labels
    (port,) = container()["ports"]
    assert service["ports"][0]["targetPort"] == port["name"]


def test_the_dashboard_is_the_one_that_the_table_makes():
    assert (ROOT / "deploy" / "grafana.json").read_text("utf-8") == dashboard.text()


def test_the_dashboard_asks_for_metrics_that_a_server_has():
    queries = [
        query for _, panels in dashboard.ROWS for panel in panels for _, query in panel.curves
    ]
    wanted = set(re.findall(r"threadline_\w+", " ".join(queries)))
    source = "".join(
        path.read_text("utf-8") for path in (*ROOT.glob("threads/*.py"), *ROOT.glob("src/**/*.py"))
    )
    stems = set(re.findall(r'"(threadline_\w+)', source))
    parts = re.findall(r'f"(threadline_\w*)\{name\}(\w*)"', source)
    names = set(re.findall(r'\(\s*"(\w+)",', source))
    made = {f"{head}{name}{tail}" for head, tail in parts for name in names}
    plain = {name.removesuffix("_bucket") for name in wanted}
    assert plain <= stems | made


def test_the_balancer_takes_its_configuration():
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if haproxy is None:
        pytest.skip("there is no haproxy here")
    environ = {
        "THREADLINE_STATS": "/tmp/threadline-test.sock",
        "THREADLINE_FRONT": "127.0.0.1:18080",
        "THREADLINE_FIRST": "127.0.0.1:18081",
        "THREADLINE_SECOND": "127.0.0.1:18082",
        "THREADLINE_THIRD": "127.0.0.1:18083",
    }
    ended = subprocess.run(
        [haproxy, "-c", "-f", str(ROOT / "deploy" / "haproxy.cfg")],
        env=environ, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
